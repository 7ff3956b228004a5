"""Calls as plain gRPC, one for each item: for peers without a stream, and to compare with."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import math
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message
from penstock.rpc.auth import CONTEXT_KEY, TOKEN_KEY
from penstock.rpc.call import Call
from penstock.rpc.dispatch import MAX_REQUEST_BYTES, ONE_MESSAGE_BYTES, Rpc, check_fits, rpcs_of
from penstock.rpc.errors import deadline_exceeded, to_fault, unavailable
from penstock.rpc.request_parts import REQUEST_BYTES_KEY, parts_of
from penstock.rpc.spans import NO_TRACER, Span, Tracer
from penstock.service.clock import Clock, SystemClock


class UnaryPeer:
    """Calls a service by plain gRPC.

    Args:
        divides: whether a request that exceeds a message goes in parts, as services may send it.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        service: ServiceDescriptor,
        *,
        token: str = "",
        clock: Clock | None = None,
        tracer: Tracer = NO_TRACER,
        metadata: tuple[tuple[str, str], ...] = (),
        divides: bool = False,
    ) -> None:
        self._channel = channel
        self._rpcs = rpcs_of(service)
        self._metadata = (*metadata, *(((TOKEN_KEY, token),) if token else ()))
        self._clock = clock or SystemClock()
        self._tracer = tracer
        self._most_bytes = MAX_REQUEST_BYTES if divides else ONE_MESSAGE_BYTES
        self._closed = False
        self._stubs = {name: self._stub(rpc) for name, rpc in self._rpcs.items()}

    def presenting(self, metadata: tuple[tuple[str, str], ...]) -> UnaryPeer:
        """The same peer, with this metadata on each call."""
        view = copy.copy(self)
        view._metadata = (*self._metadata, *metadata)
        return view

    def _stub(self, rpc: Rpc) -> Any:
        make = self._channel.unary_stream if rpc.streams else self._channel.unary_unary
        return make(rpc.path, rpc.request.SerializeToString, rpc.response.FromString)

    def _begin(self, method: str, request: Message, call: Call) -> Any:
        """The call under way; a request that exceeds a message goes in several.

        Raises:
            Fault: INVALID_ARGUMENT where it is too large.
        """
        size, options = request.ByteSize(), self._options(call)
        check_fits(size, self._most_bytes)
        if size <= ONE_MESSAGE_BYTES:
            return self._stubs[method](request, **options)
        rpc = self._rpcs[method]
        make = self._channel.stream_stream if rpc.streams else self._channel.stream_unary
        options["metadata"] = (*options["metadata"], (REQUEST_BYTES_KEY, str(size)))
        in_parts = make(rpc.path, None, rpc.response.FromString)
        return in_parts(parts_of(request.SerializeToString()), **options)

    @property
    def responds(self) -> bool:
        """See Peer; always true: a plain call tells nothing of the process behind it."""
        return True

    async def call(self, method: str, request: Message, call: Call) -> Any:
        """See Peer."""
        with (
            self._tracer.span(self._rpcs[method].span, call, kind="client") as span,
            self._faults(span),
        ):
            return await self._begin(method, request, span.call)

    async def stream(self, method: str, request: Message, call: Call) -> AsyncIterator[Any]:
        """See Peer."""
        with (
            self._tracer.span(self._rpcs[method].span, call, kind="client") as span,
            self._faults(span),
        ):
            messages = self._begin(method, request, span.call)
            try:
                async for message in messages:
                    yield message
            finally:
                messages.cancel()

    @contextlib.contextmanager
    def _faults(self, span: Span) -> Iterator[None]:
        """What gRPC raises, as faults; closing the channel cancels its calls, and nobody has asked
        for that.
        """
        try:
            yield
        except grpc.aio.AioRpcError as error:
            fault = to_fault(error)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._closed or (task is not None and task.cancelling()):
                raise
            fault = unavailable("the connection was closed")
        else:
            return
        span.fail(fault.code.name, fault.reason)
        raise fault from None

    def _options(self, call: Call) -> dict[str, Any]:
        now = self._clock.monotonic()
        left_s = call.deadline_s - now
        if left_s <= 0:
            raise deadline_exceeded("no time was left to send the call")
        metadata = (*self._metadata, (CONTEXT_KEY, call.to_context(now).SerializeToString()))
        return {"metadata": metadata, "timeout": None if math.isinf(left_s) else left_s}

    async def close(self) -> None:
        """See Peer."""
        self._closed = True
        await self._channel.close()
