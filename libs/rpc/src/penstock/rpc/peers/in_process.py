"""Calls inside one process: a servicer called with the semantics of the wire."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message
from penstock.rpc.call import Call
from penstock.rpc.dispatch import Dispatcher
from penstock.rpc.errors import deadline_exceeded, unavailable
from penstock.rpc.spans import NO_TRACER, Tracer
from penstock.service.clock import Clock, SystemClock


class InProcessPeer:
    """A servicer in this process: the same semantics without a wire.

    Messages are copied, so neither side sees the other's changes.
    """

    def __init__(
        self,
        service: ServiceDescriptor,
        servicer: object,
        *,
        clock: Clock | None = None,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        self._dispatcher = Dispatcher(service, servicer, tracer)
        self._clock = clock or SystemClock()
        self._closed = False

    async def call(self, method: str, request: Message, call: Call) -> Any:
        """See Peer."""
        left_s = self._left_s(call)
        rpc = self._dispatcher.rpcs[method]
        try:
            async with asyncio.timeout(None if math.isinf(left_s) else left_s):
                return _copy(await self._dispatcher.act(rpc, _copy(request), call))
        except TimeoutError:
            raise deadline_exceeded("the time was up before the answer was there") from None

    async def stream(self, method: str, request: Message, call: Call) -> AsyncIterator[Any]:
        """See Peer."""
        left_s = self._left_s(call)
        messages = self._dispatcher.act_stream(self._dispatcher.rpcs[method], _copy(request), call)
        ends_at = None if math.isinf(left_s) else asyncio.get_running_loop().time() + left_s
        try:
            while True:
                async with asyncio.timeout_at(ends_at):
                    message = await anext(messages, None)
                if message is None:
                    return
                yield _copy(message)
        except TimeoutError:
            raise deadline_exceeded("the time was up before the answer was there") from None
        finally:
            await messages.aclose()  # type: ignore[attr-defined]

    def _left_s(self, call: Call) -> float:
        if self._closed:
            raise unavailable("the connection was closed")
        left_s = call.deadline_s - self._clock.monotonic()
        if left_s <= 0:
            raise deadline_exceeded("no time was left to send the call")
        return left_s

    async def close(self) -> None:
        """See Peer."""
        self._closed = True


def _copy(message: Message) -> Message:
    fresh = type(message)()
    fresh.CopyFrom(message)
    return fresh
