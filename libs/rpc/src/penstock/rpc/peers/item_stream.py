"""The client side of the multiplexed item stream (`item_session` is its server side).

A caller that awaits `call` owns its item; leaving the await, by answer, fault or cancellation, ends
the item on both sides.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from penstock.api.common.v1 import common_pb2
from penstock.rpc.call import Call
from penstock.rpc.dispatch import EXCHANGE, FRAME_BYTES, Rpc, check_fits, rpcs_of
from penstock.rpc.errors import Fault, deadline_exceeded, from_item_status, to_fault, unavailable
from penstock.rpc.peers.liveness import Check, Liveness
from penstock.rpc.reasons import Reason
from penstock.rpc.spans import Tracer
from penstock.service.clock import Clock

RESULT_WINDOW = 4096
"""Results that the other side may send before we grant more."""

FRAME_ITEMS = 256
"""Items in one frame at most."""

BROKEN = frozenset({grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL})
"""Codes of a stream that broke rather than of an item that failed: grpc says INTERNAL where it
breaks under a write. Its items may be tried again.
"""


class _Waiter:
    """Who waits for an item: a future for a unary answer, a queue for a stream."""

    __slots__ = ("abandoned", "call", "chunks", "done", "item_id", "method", "payload", "sent")

    def __init__(self, item_id: int, rpc: Rpc, payload: bytes, call: Call) -> None:
        self.item_id = item_id
        self.method = rpc.name
        self.payload = payload
        self.call = call
        self.sent = False
        self.abandoned = False
        self.done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.chunks: asyncio.Queue[bytes | Fault | None] | None = (
            asyncio.Queue() if rpc.streams else None
        )

    def take(self, result: common_pb2.ItemResult) -> bool:
        """Take a result; True when it was the last."""
        if self.chunks is not None:
            return self._take_chunk(self.chunks, result)
        if not self.done.done():
            if result.status.code:
                self.done.set_exception(from_item_status(result.status))
            else:
                self.done.set_result(result.payload)
        return True

    def _take_chunk(
        self, chunks: asyncio.Queue[bytes | Fault | None], result: common_pb2.ItemResult
    ) -> bool:
        if not result.HasField("status"):
            chunks.put_nowait(result.payload)
            return False
        chunks.put_nowait(from_item_status(result.status) if result.status.code else None)
        return True

    def fail(self, fault: Fault) -> None:
        if self.chunks is not None:
            self.chunks.put_nowait(fault)
        elif not self.done.done():
            self.done.set_exception(fault)


class ItemStreamPeer:
    """A service called over one multiplexed item stream.

    Frames gather whatever waits while a write is in flight, so an idle hop adds no delay.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        service: ServiceDescriptor,
        metadata: tuple[tuple[str, str], ...],
        clock: Clock,
        tracer: Tracer,
    ) -> None:
        method = service.methods_by_name[EXCHANGE]
        self._frame: Any = GetMessageClass(method.input_type)
        self._open = channel.stream_stream(
            f"/{service.full_name}/{EXCHANGE}",
            request_serializer=self._frame.SerializeToString,
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        self._channel = channel
        self._rpcs = rpcs_of(service)
        self._name = service.full_name
        self._metadata = metadata
        self._clock = clock
        self._tracer = tracer
        self._ids = itertools.count(1)
        self._waiting: dict[int, _Waiter] = {}
        self._outbox: deque[_Waiter] = deque()
        self._cancelled: list[int] = []
        self._credits = 0
        self._consumed = 0
        self._wake = asyncio.Event()
        self._session: asyncio.Task[None] | None = None
        self._closed = False
        self._failures = 0
        self._liveness = Liveness()
        self._ping = 0
        self._check: asyncio.TimerHandle | None = None

    @property
    def responds(self) -> bool:
        """See Peer."""
        return not self._liveness.is_hung

    async def call(self, method: str, request: Message, call: Call) -> Any:
        """See Peer."""
        rpc = self._rpcs[method]
        with self._tracer.span(rpc.span, call, kind="client") as span:
            try:
                waiter, timer = self._send(rpc, request, span.call)
                try:
                    payload = await waiter.done
                finally:
                    self._leave(waiter, timer)
            except BaseException as error:
                fault = to_fault(error)
                span.fail(fault.code.name, fault.reason)
                raise
            return rpc.response.FromString(payload)

    async def stream(self, method: str, request: Message, call: Call) -> AsyncIterator[Any]:
        """See Peer."""
        rpc = self._rpcs[method]
        with self._tracer.span(rpc.span, call, kind="client") as span:
            waiter, timer = self._send(rpc, request, span.call)
            assert waiter.chunks is not None
            try:
                while (chunk := await waiter.chunks.get()) is not None:
                    if isinstance(chunk, Fault):
                        span.fail(chunk.code.name, chunk.reason)
                        raise chunk
                    yield rpc.response.FromString(chunk)
            finally:
                self._leave(waiter, timer)

    async def close(self) -> None:
        """See Peer."""
        self._closed = True
        self._stop_checking()
        if self._session is not None:
            self._session.cancel()
            await asyncio.wait([self._session])
        self._fail_all(unavailable("the connection was closed"))
        await self._channel.close()

    def _send(
        self, rpc: Rpc, request: Message, call: Call
    ) -> tuple[_Waiter, asyncio.TimerHandle | None]:
        now = self._clock.monotonic()
        left_s = call.deadline_s - now
        if left_s <= 0:
            raise deadline_exceeded("no time was left to send the call")
        if self._liveness.is_hung:
            raise self._hung()
        payload = request.SerializeToString()
        check_fits(len(payload))
        if self._session is None:
            if self._closed:
                raise unavailable("the connection was closed")
            self._session = asyncio.get_running_loop().create_task(self._run_session())
        waiter = _Waiter(next(self._ids), rpc, payload, call)
        self._waiting[waiter.item_id] = waiter
        self._outbox.append(waiter)
        self._wake.set()
        if self._liveness.sent(now):
            self._check_later(now)
        if math.isinf(left_s):
            return waiter, None
        return waiter, asyncio.get_running_loop().call_later(left_s, self._expire, waiter)

    def _expire(self, waiter: _Waiter) -> None:
        waiter.fail(deadline_exceeded("the time was up before the answer was there"))

    def _leave(self, waiter: _Waiter, timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()
        if self._waiting.pop(waiter.item_id, None) is None:
            return
        waiter.done.cancel()
        waiter.abandoned = True
        if waiter.sent:
            self._cancelled.append(waiter.item_id)
            self._wake.set()

    async def _run_session(self) -> None:
        """One stream from opening to breaking.

        What was in flight fails UNAVAILABLE; the next call opens another.
        """
        reason = unavailable(f"{self._name}: the stream was closed")
        try:
            if self._failures:
                await asyncio.sleep(min(1.0, 0.02 * 2**self._failures) * random.uniform(0.5, 1.0))
            reason = await self._exchange()
        finally:
            self._session = None
            self._stop_checking()
            self._failures = min(self._failures + 1, 6)
            self._fail_all(reason)

    async def _exchange(self) -> Fault:
        stream = self._open(metadata=self._metadata)
        self._credits, self._consumed = 0, 0
        writer = asyncio.create_task(self._write(stream))
        try:
            while (frame := await stream.read()) is not grpc.aio.EOF:
                self._failures = 0
                self._take(frame)
            return unavailable(f"{self._name}: the stream was closed")
        except grpc.aio.AioRpcError as error:
            fault = to_fault(error)
            return unavailable(f"{self._name}: {fault.message}") if fault.code in BROKEN else fault
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
            stream.cancel()

    def _take(self, frame: Any) -> None:
        self._liveness.heard(self._clock.monotonic())
        if frame.credits:
            self._credits += frame.credits
            self._wake.set()
        waiting = self._waiting
        for result in frame.results:
            waiter = waiting.get(result.id)
            if waiter is not None and waiter.take(result):
                del waiting[result.id]
        self._consumed += len(frame.results)
        if self._consumed >= RESULT_WINDOW // 2:
            self._wake.set()

    async def _write(self, stream: Any) -> None:
        await stream.write(self._frame(credits=RESULT_WINDOW))
        while True:
            await self._wake.wait()
            self._wake.clear()
            while frame := self._next_frame():
                await stream.write(frame)

    def _next_frame(self) -> Any:
        """Everything that may be sent now, or None: items as far as credits go, cancellations,
        credits for results.
        """
        cancelled, self._cancelled = self._cancelled, []
        grant = self._consumed if self._consumed >= RESULT_WINDOW // 2 else 0
        self._consumed -= grant
        ping, self._ping = self._ping, 0
        frame = self._frame(cancelled_ids=cancelled, credits=grant, ping=ping)
        sent = self._add_items(frame)
        return frame if sent or cancelled or grant or ping else None

    def _check_later(self, now: float) -> None:
        if self._check is not None:
            self._check.cancel()
        delay_s = self._liveness.check_at_s - now
        self._check = asyncio.get_running_loop().call_later(delay_s, self._check_liveness)

    def _check_liveness(self) -> None:
        """Ping the peer where it has been silent for long; fail whoever waits where it is hung."""
        self._check = None
        now = self._clock.monotonic()
        found = self._liveness.check(now, bool(self._waiting))
        if found is Check.PING:
            self._ping = 1
            self._wake.set()
        elif found is Check.HUNG:
            for waiter in self._waiting.values():
                waiter.fail(self._hung())
        if not math.isinf(self._liveness.check_at_s):
            self._check_later(now)

    def _stop_checking(self) -> None:
        if self._check is not None:
            self._check.cancel()
            self._check = None
        self._liveness = Liveness()

    def _hung(self) -> Fault:
        message = f"{self._name}: the peer is hung, it answers no ping"
        return unavailable(message, reason=Reason.PEER_HUNG)

    def _add_items(self, frame: Any) -> int:
        now = self._clock.monotonic()
        room = count = min(self._credits, FRAME_ITEMS)
        size, outbox = 0, self._outbox
        while outbox and room:
            waiter = outbox.popleft()
            if waiter.abandoned:
                continue
            size += len(waiter.payload)
            if size > FRAME_BYTES and room < count:
                outbox.appendleft(waiter)
                break
            item = frame.items.add(id=waiter.item_id, method=waiter.method, payload=waiter.payload)
            waiter.call.fill(item.context, now)
            waiter.sent, waiter.payload = True, b""
            room -= 1
        self._credits -= count - room
        return count - room

    def _fail_all(self, why: Fault) -> None:
        waiting, self._waiting = self._waiting, {}
        self._outbox.clear()
        self._cancelled.clear()
        for waiter in waiting.values():
            waiter.fail(Fault(why.reason, why.message, retry_after_s=why.retry_after_s))
