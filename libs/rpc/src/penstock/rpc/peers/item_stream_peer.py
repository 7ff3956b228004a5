"""A service called over item streams: one at a time, and another once that one stops or breaks.

A stream whose process stops answers what it has while new items go over the next stream, which a
new connection carries: to another process behind the same address where there is one.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from penstock.rpc.call import Call
from penstock.rpc.dispatch import (
    EXCHANGE,
    MAX_REQUEST_BYTES,
    ONE_MESSAGE_BYTES,
    Rpc,
    check_fits,
    rpcs_of,
)
from penstock.rpc.errors import Fault, deadline_exceeded, to_fault, unavailable
from penstock.rpc.peers.frame_stream import open_frames
from penstock.rpc.peers.item_stream import ItemStream, Waiter
from penstock.rpc.spans import Span, Tracer
from penstock.service.clock import Clock

MAX_FAILURES = 6
"""Counted failures in a row: the pause before the next stream grows no further."""


class ItemStreamPeer:
    """See Peer. Owner of its channel and streams."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        service: ServiceDescriptor,
        metadata: tuple[tuple[str, str], ...],
        clock: Clock,
        tracer: Tracer,
        *,
        divides: bool = False,
        local_address: str = "",
    ) -> None:
        """Make it; nothing is opened before the first call.

        Args:
            divides: whether requests that exceed a message may be sent.
            local_address: of the service, where its streams may go over the socket beside its port;
                empty: they go over the channel.
        """
        method = service.methods_by_name[EXCHANGE]
        self._frame: Any = GetMessageClass(method.input_type)
        self._response = GetMessageClass(method.output_type).FromString
        self._local_address = local_address
        self._open = channel.stream_stream(
            f"/{service.full_name}/{EXCHANGE}",
            request_serializer=self._frame.SerializeToString,
            response_deserializer=self._response,
        )
        self._channel = channel
        self._rpcs = rpcs_of(service)
        self._name = service.full_name
        self._metadata = metadata
        self._clock = clock
        self._tracer = tracer
        self._most_bytes = MAX_REQUEST_BYTES if divides else ONE_MESSAGE_BYTES
        self._current: ItemStream | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._closed = False
        self._failures = 0

    @property
    def responds(self) -> bool:
        """See Peer."""
        return self._current is None or self._current.responds

    async def call(self, method: str, request: Message, call: Call) -> Any:
        """See Peer."""
        rpc = self._rpcs[method]
        with self._tracer.span(rpc.span, call, kind="client") as span:
            try:
                stream, waiter = self._send(rpc, request, span.call)
                try:
                    payload = await waiter.done
                finally:
                    stream.leave(waiter)
                    # A fault knows this frame, and the waiter has the fault: with both the request
                    # would be kept until the collector comes by.
                    del waiter
            except BaseException as error:
                _record(span, error)
                raise
            return rpc.response.FromString(payload)

    async def stream(self, method: str, request: Message, call: Call) -> AsyncIterator[Any]:
        """See Peer."""
        rpc = self._rpcs[method]
        with self._tracer.span(rpc.span, call, kind="client") as span:
            stream, waiter = self._send(rpc, request, span.call)
            assert waiter.chunks is not None
            try:
                while (chunk := await waiter.chunks.get()) is not None:
                    if isinstance(chunk, Fault):
                        span.fail(chunk.code.name, chunk.reason)
                        raise chunk
                    yield rpc.response.FromString(chunk)
            finally:
                stream.leave(waiter)

    async def close(self) -> None:
        """See Peer."""
        self._closed = True
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if self._current is not None:  # its task was cancelled before its first step
            self._current.fail_all(unavailable("the connection was closed"))
        await self._channel.close()

    def _send(self, rpc: Rpc, request: Message, call: Call) -> tuple[ItemStream, Waiter]:
        now = self._clock.monotonic()
        if call.deadline_s <= now:
            raise deadline_exceeded("no time was left to send the call")
        payload = request.SerializeToString()
        check_fits(len(payload), self._most_bytes)
        stream = self._current
        if stream is None or not stream.is_accepting:
            stream = self._begin()
        return stream, stream.send(rpc, payload, call, now)

    def _begin(self) -> ItemStream:
        """Open the stream that takes items from now on."""
        if self._closed:
            raise unavailable("the connection was closed")
        if self._current is not None:  # it drains, which is no failure
            self._failures = 0
        stream = self._current = ItemStream(self._frame, self._name, self._clock)
        task = asyncio.get_running_loop().create_task(self._run(stream))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return stream

    async def _run(self, stream: ItemStream) -> None:
        """One stream from opening to breaking. What was in flight fails UNAVAILABLE."""
        reason = unavailable("the connection was closed")
        try:
            if self._failures:
                pause_s = min(1.0, 0.02 * 2**self._failures)
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            reason = await stream.run(await self._opened())
        except Fault as fault:
            reason = fault
        finally:
            if self._current is stream:
                self._current = None
                self._failures = 1 if stream.was_heard else min(self._failures + 1, MAX_FAILURES)
            stream.fail_all(reason)

    async def _opened(self) -> Any:
        """A stream over the socket beside the service's port, else over the channel.

        Raises:
            Fault: see `open_frames`.
        """
        frames = None
        if self._local_address:
            frames = await open_frames(
                self._local_address, self._name, self._metadata, self._response
            )
        return frames or self._open(metadata=self._metadata)


def _record(span: Span, error: BaseException) -> None:
    fault = to_fault(error)
    span.fail(fault.code.name, fault.reason)
