"""One multiplexed item stream, seen by the caller (`item_session` is its server side).

Frames gather whatever waits while a write is in flight, so an idle hop adds no delay. A caller that
waits owns its item; leaving the wait, by answer, fault or cancellation, ends the item on both
sides.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections import deque
from typing import Any

import grpc
from penstock.api.common.v1 import common_pb2
from penstock.rpc.call import Call
from penstock.rpc.dispatch import FRAME_BYTES, ONE_MESSAGE_BYTES, Rpc
from penstock.rpc.errors import Fault, deadline_exceeded, from_item_status, to_fault, unavailable
from penstock.rpc.peers.liveness import Check, Liveness
from penstock.rpc.reasons import Reason
from penstock.rpc.request_parts import PART_BYTES
from penstock.service.clock import Clock

RESULT_WINDOW = 4096
"""Results that the other side may send before we grant more."""

FRAME_ITEMS = 256
"""Items in one frame at most."""

BROKEN = frozenset({grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL})
"""Codes of a stream that broke rather than of an item that failed: grpc says INTERNAL where it
breaks under a write. Its items may be tried again.
"""


class Waiter:
    """Who waits for an item: a future for a unary answer, a queue for a stream."""

    __slots__ = (
        "abandoned",
        "call",
        "chunks",
        "done",
        "item_id",
        "large_bytes",
        "method",
        "offset",
        "payload",
        "sent",
        "timer",
    )

    def __init__(self, item_id: int, rpc: Rpc, payload: bytes, call: Call) -> None:
        self.item_id = item_id
        self.method = rpc.name
        self.payload = payload
        self.offset = 0
        """Bytes of the payload that were sent."""
        self.large_bytes = len(payload) if len(payload) > ONE_MESSAGE_BYTES else 0
        """Bytes of a payload that goes in parts; 0 for one that goes whole."""
        self.call = call
        self.sent = False
        """Whether its first part, or all of it, was sent."""
        self.abandoned = False
        self.timer: asyncio.TimerHandle | None = None
        self.done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.chunks: asyncio.Queue[bytes | Fault | None] | None = (
            asyncio.Queue() if rpc.streams else None
        )

    @property
    def part_bytes(self) -> int:
        """Bytes of what is sent next: all, or the next part of what exceeds a message."""
        if not self.large_bytes:
            return len(self.payload)
        return min(PART_BYTES, len(self.payload) - self.offset)

    def put_part(self, items: Any, now: float) -> bool:
        """Put what is sent next among a frame's items; True when it was the last of it."""
        end = self.offset + self.part_bytes
        part = self.payload[self.offset : end]
        if self.sent:
            item = items.add(id=self.item_id, payload=part)
        else:
            item = items.add(id=self.item_id, method=self.method, payload=part)
            self.call.fill(item.context, now)
        self.sent, self.offset = True, end
        if end < len(self.payload):
            item.remaining_bytes = len(self.payload) - end
            return False
        self.payload = b""
        return True

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
        """End the wait with a fault, unless it has ended."""
        if self.chunks is not None:
            self.chunks.put_nowait(fault)
        elif not self.done.done():
            self.done.set_exception(fault)


class ItemStream:
    """One stream from its opening to its end. Owner: the peer that runs it.

    Args:
        frame: the message class of what is sent.
        name: of the service, for messages.
    """

    def __init__(self, frame: Any, name: str, clock: Clock) -> None:
        self._frame = frame
        self._name = name
        self._clock = clock
        self._ids = itertools.count(1)
        self._waiting: dict[int, Waiter] = {}
        self._outbox: deque[Waiter] = deque()
        self._cancelled: list[int] = []
        self._credits = 0
        self._consumed = 0
        self._wake = asyncio.Event()
        self._liveness = Liveness()
        self._ping = 0
        self._check: asyncio.TimerHandle | None = None
        self.is_accepting = True
        """Whether it takes items: until it has ended, or the other side says that it stops."""
        self.was_heard = False

    @property
    def responds(self) -> bool:
        """False while the other side is hung."""
        return not self._liveness.is_hung

    def send(self, rpc: Rpc, payload: bytes, call: Call, now: float) -> Waiter:
        """Send an item; the caller must `leave` its waiter.

        Raises:
            Fault: PEER_HUNG.
        """
        if self._liveness.is_hung:
            raise self._hung()
        waiter = Waiter(next(self._ids), rpc, payload, call)
        self._waiting[waiter.item_id] = waiter
        self._outbox.append(waiter)
        self._wake.set()
        if self._liveness.sent(now):
            self._check_later(now)
        left_s = call.deadline_s - now
        if not math.isinf(left_s):
            waiter.timer = asyncio.get_running_loop().call_later(left_s, _expire, waiter)
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """The caller has gone; an item that was sent and not answered is cancelled."""
        if waiter.timer is not None:
            waiter.timer.cancel()
        if self._waiting.pop(waiter.item_id, None) is None:
            return
        waiter.done.cancel()
        waiter.abandoned = True
        if waiter.sent:
            self._cancelled.append(waiter.item_id)
        if waiter.sent or not self.is_accepting:
            self._wake.set()

    async def run(self, stream: Any) -> Fault:
        """Exchange frames until the stream ends; returns why it did. Who waits still must be told
        by `fail_all`.
        """
        writer = asyncio.create_task(self._write(stream))
        try:
            while (frame := await stream.read()) is not grpc.aio.EOF:
                self._take(frame)
                frame = None  # is not kept while the next one is waited for
            return unavailable(f"{self._name}: the stream was closed")
        except Fault as refusal:
            return refusal
        except grpc.aio.AioRpcError as error:
            fault = to_fault(error)
            return unavailable(f"{self._name}: {fault.message}") if fault.code in BROKEN else fault
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
            stream.cancel()

    def fail_all(self, why: Fault) -> None:
        """Take no more items, and fail whoever waits."""
        self.is_accepting = False
        if self._check is not None:
            self._check.cancel()
        waiting, self._waiting = self._waiting, {}
        self._outbox.clear()
        self._cancelled.clear()
        for waiter in waiting.values():
            waiter.fail(Fault(why.reason, why.message, retry_after_s=why.retry_after_s))

    def _take(self, frame: Any) -> None:
        self.was_heard = True
        self._liveness.heard(self._clock.monotonic(), answers_pings=frame.answers_pings)
        if frame.draining:
            self.is_accepting = False
        if frame.credits:
            self._credits += frame.credits
            self._wake.set()
        waiting = self._waiting
        for result in frame.results:
            waiter = waiting.get(result.id)
            if waiter is not None and waiter.take(result):
                del waiting[result.id]
        self._consumed += len(frame.results)
        if self._consumed >= RESULT_WINDOW // 2 or not self.is_accepting:
            self._wake.set()

    async def _write(self, stream: Any) -> None:
        """Send frames; close this side once the other drains and nobody waits any more.

        Nothing is written before the other side has accepted the stream: gRPC reports a write to a
        stream that is being refused as an error of its own, in place of the reason.
        """
        await stream.initial_metadata()
        if stream.done():
            return
        await stream.write(self._frame(credits=RESULT_WINDOW))
        while self.is_accepting or self._waiting:
            await self._wake.wait()
            self._wake.clear()
            while frame := self._next_frame():
                await stream.write(frame)
        await stream.done_writing()

    def _next_frame(self) -> Any:
        """Everything that may be sent now, or None: items as far as credits go, cancellations,
        credits for results, a ping.
        """
        cancelled, self._cancelled = self._cancelled, []
        grant = self._consumed if self._consumed >= RESULT_WINDOW // 2 else 0
        self._consumed -= grant
        ping, self._ping = self._ping, 0
        frame = self._frame(cancelled_ids=cancelled, credits=grant, ping=ping)
        sent = self._add_items(frame)
        return frame if sent or cancelled or grant or ping else None

    def _add_items(self, frame: Any) -> int:
        now = self._clock.monotonic()
        room = min(self._credits, FRAME_ITEMS)
        size, outbox = 0, self._outbox
        # The parts after the first of an item cost no credits: the other side waits for them.
        while outbox and (room or outbox[0].sent):
            waiter = outbox.popleft()
            if waiter.abandoned:
                continue
            size += waiter.part_bytes
            if size > FRAME_BYTES and frame.items:
                outbox.appendleft(waiter)
                break
            if not waiter.sent:
                room -= 1
                self._credits -= 1
            if not waiter.put_part(frame.items, now):
                outbox.append(waiter)
        return len(frame.items)

    def _check_later(self, now: float) -> None:
        if self._check is not None:
            self._check.cancel()
        delay_s = self._liveness.check_at_s - now
        self._check = asyncio.get_running_loop().call_later(delay_s, self._check_liveness)

    def _check_liveness(self) -> None:
        """Ping the peer where it has been silent for long; fail whoever waits where it is hung."""
        self._check = None
        now = self._clock.monotonic()
        large_bytes = sum(waiter.large_bytes for waiter in self._waiting.values())
        found = self._liveness.check(now, bool(self._waiting), large_bytes)
        if found is Check.PING:
            self._ping = 1
            self._wake.set()
        elif found is Check.HUNG:
            for waiter in self._waiting.values():
                waiter.fail(self._hung())
        if not math.isinf(self._liveness.check_at_s):
            self._check_later(now)

    def _hung(self) -> Fault:
        message = f"{self._name}: the peer is hung, it answers no ping"
        return unavailable(message, reason=Reason.PEER_HUNG)


def _expire(waiter: Waiter) -> None:
    """The item's time is up."""
    waiter.fail(deadline_exceeded("the time was up before the answer was there"))
