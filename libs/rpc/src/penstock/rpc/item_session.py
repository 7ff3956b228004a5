"""Server side of the item stream: each item is its own task, each result leaves as soon as it is
ready.

The session owns every item from its frame until its last result is handed to the writer or the
stream is gone.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from google.protobuf.message import Message
from penstock.api.common.v1 import common_pb2
from penstock.rpc.call import Call
from penstock.rpc.caller_limits import UNLIMITED, CallerShare
from penstock.rpc.dispatch import FRAME_BYTES, Dispatcher, PendingCall, Rpc
from penstock.rpc.errors import (
    OK,
    Fault,
    deadline_exceeded,
    exhausted,
    invalid,
    released,
    to_item_status,
    unavailable,
)
from penstock.rpc.request_parts import PartialItems, check_share
from penstock.rpc.slow_readers import SLOW_READER_S
from penstock.service.clock import Clock

ITEM_WINDOW = 1024
"""Items that a peer may have in flight on one stream."""

FRAME_RESULTS = 256
"""Results in one frame at most, so that a frame stays small."""

LINGER_S = 0.3
"""Time in which a session that drains still takes items, until the peer has heard of it."""

MAX_UNTAKEN = 4 * ITEM_WINDOW
"""Results that wait for a peer that grants no credits; a stream with more is cut."""
MAX_UNTAKEN_BYTES = 16 << 20
"""Their bytes from which on no item is started."""

ItemCall = Callable[[common_pb2.CallContext, float], Call]
"""Makes an item's call from its context: an internal endpoint believes it, a public one takes only
what a caller may say, and raises Fault where the caller is not accepted any more.
"""


class Session:
    """One open stream.

    `context` is grpc.aio's; frames are messages of the service's own Exchange types.

    Args:
        share: what the caller may have in flight over all of its streams and calls.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        frame: type[Message],
        clock: Clock,
        item_call: ItemCall,
        share: CallerShare = UNLIMITED,
    ) -> None:
        self._dispatcher = dispatcher
        self._frame: Any = frame
        self._clock = clock
        self._item_call = item_call
        self._share = share
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._sizes: dict[int, int] = {}
        """Request bytes of what is counted in the share."""
        self._partial = PartialItems()
        self._expired: set[int] = set()
        self._ready: deque[tuple[int, bytes, common_pb2.ItemStatus | None]] = deque()
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._result_credits = 0
        self._ping = 0
        self._finished = 0
        self._closing = False
        self._says_draining = False
        self._is_refusing = False
        self._untaken_bytes = 0
        self._taken = 0
        self._cut: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, context: Any, eof: object) -> None:
        """Serve until the peer has closed its side or the session drains, and every item has ended,
        or the stream is cancelled.

        Raises:
            Fault: RESOURCE_EXHAUSTED where the peer does not take its results.
        """
        await context.write(self._frame(credits=ITEM_WINDOW, answers_pings=True))
        reader = asyncio.create_task(self._read(context, eof))
        writer = asyncio.create_task(self._write(context))
        watcher = asyncio.create_task(self._watch_reader())
        try:
            await asyncio.wait((reader, writer, self._cut), return_when=asyncio.FIRST_COMPLETED)
            if reader.done():
                reader.result()
            await asyncio.wait((writer, self._cut), return_when=asyncio.FIRST_COMPLETED)
            if self._cut.done():
                self._cut.result()
            writer.result()
        finally:
            self._cut.cancel()
            await self._close(reader, writer, watcher)

    async def _watch_reader(self) -> None:
        """Cut the stream of a peer that takes nothing while results wait."""
        while True:
            taken = self._taken
            await asyncio.sleep(SLOW_READER_S)
            if self._ready and taken == self._taken:
                self._cut_off(f"no result was taken for {SLOW_READER_S:g} s")

    def _cut_off(self, why: str) -> None:
        if not self._cut.done():
            self._cut.set_exception(exhausted(f"the stream is cut: {why}"))

    def drain(self) -> None:
        """Ask the peer to send its items elsewhere. What it sent before it heard of that is served,
        for LINGER_S; the stream ends once it has closed its side, or all is answered.
        """
        self.move()
        asyncio.get_running_loop().call_later(LINGER_S, self._refuse)

    def move(self) -> None:
        """Ask the peer to send its items over another stream. This one serves whatever it still
        brings, and ends once the peer has closed its side.
        """
        self._says_draining = True
        self._wake.set()

    def _refuse(self) -> None:
        self._is_refusing = True
        self._end_when_idle()

    def _end_when_idle(self) -> None:
        self._closing = True
        self._wake.set()

    async def _read(self, context: Any, eof: object) -> None:
        while (frame := await context.read()) is not eof:
            self._take(frame)
            frame = None  # is not kept while the next one is waited for
        self._end_when_idle()

    async def _close(self, *own_tasks: asyncio.Task[None]) -> None:
        tasks = [*own_tasks, *self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for item_id in list(self._sizes):  # of tasks that were cancelled before their first step
            self._release(item_id)

    def _take(self, frame: Any) -> None:
        if frame.credits:
            self._result_credits += frame.credits
            self._wake.set()
            self._room.set()
        if frame.ping:
            self._ping = frame.ping
            self._wake.set()
        for item_id in frame.cancelled_ids:
            self._partial.drop(item_id)
            if task := self._tasks.get(item_id):
                task.cancel()
        now = self._clock.monotonic()
        for item in frame.items:
            if item.method and not item.remaining_bytes:
                self._start(item, now)
            else:
                self._take_part(item, now)

    def _take_part(self, item: common_pb2.Item, now: float) -> None:
        """Take a part of an item, which starts with its last part."""
        try:
            if item.method:
                check_share(len(item.payload) + item.remaining_bytes, self._share)
                self._partial.begin(item, now)
            elif not self._share.takes_parts:
                raise invalid("method", "is missing")
            elif (whole := self._partial.add(item)) is not None:
                self._start(*whole)
        except Fault as fault:
            self._end(item.id, fault)

    def _start(self, item: common_pb2.Item, now: float) -> None:
        rpc = self._dispatcher.rpcs.get(item.method)
        if rpc is None:
            service = self._dispatcher.service.full_name
            self._end(item.id, invalid("method", f"{item.method!r} is not a method of {service}"))
            return
        if self._is_refusing:
            self._end(item.id, unavailable("this process is stopping; try another"))
            return
        if item.id in self._tasks:
            self._end(item.id, invalid("id", f"item {item.id} is in flight already"))
            return
        if len(self._tasks) >= ITEM_WINDOW:
            message = "more items in flight than the stream has credits for"
            self._end(item.id, exhausted(message))
            return
        if self._untaken_bytes > MAX_UNTAKEN_BYTES:
            message = "results of this stream wait to be taken; grant credits and read them"
            self._end(item.id, exhausted(message))
            return
        try:
            call = self._item_call(item.context, now)
        except Fault as fault:
            self._end(item.id, fault)
            return
        left_s = call.deadline_s - now
        if left_s <= 0:
            self._end(item.id, deadline_exceeded("no time was left when the item arrived"))
            return
        size = len(item.payload)
        try:
            self._share.begin(size)
        except Fault as fault:
            self._end(item.id, fault)
            return
        self._sizes[item.id] = size
        if rpc.streams:
            work = self._serve_stream(item, rpc, call, left_s)
        else:
            pending = self._begin(item, rpc, call, left_s)
            if pending is None:
                self._release(item.id)
                return
            work = pending
        self._tasks[item.id] = asyncio.get_running_loop().create_task(work)

    def _begin(
        self, item: common_pb2.Item, rpc: Rpc, call: Call, left_s: float
    ) -> Coroutine[None, None, None] | None:
        """Answer an item at once where that is possible; otherwise the work that is left."""
        try:
            pending = self._dispatcher.begin(rpc, rpc.parse(item.payload), call)
        except Exception as error:
            self._end(item.id, error)
            return None
        if pending.response is None:
            return self._serve(item.id, pending, left_s)
        self._push(item.id, pending.response.SerializeToString(), OK)
        return None

    async def _serve(self, item_id: int, pending: PendingCall, left_s: float) -> None:
        timer = self._arm(item_id, left_s)
        try:
            response = await self._dispatcher.finish(pending)
        except BaseException as error:
            self._end(item_id, self._cause(item_id, error))
            if not isinstance(error, Exception | asyncio.CancelledError):
                raise
        else:
            self._push(item_id, response.SerializeToString(), OK)
        finally:
            self._disarm(item_id, timer)

    async def _serve_stream(
        self, item: common_pb2.Item, rpc: Rpc, call: Call, left_s: float
    ) -> None:
        timer = self._arm(item.id, left_s)
        payloads = self._dispatcher.stream(rpc, item.payload, call)
        try:
            first = True
            async for payload in payloads:
                self._push(item.id, payload, None)
                if first:
                    # The writer's turn: the first piece leaves before the next ones, which may be
                    # there already, are made.
                    first = False
                    await asyncio.sleep(0)
                while len(self._ready) > ITEM_WINDOW:
                    self._room.clear()
                    await self._room.wait()
        except BaseException as error:
            self._end(item.id, self._cause(item.id, error))
            if not isinstance(error, Exception | asyncio.CancelledError):
                raise
        else:
            self._push(item.id, b"", OK)
        finally:
            await payloads.aclose()  # type: ignore[attr-defined]
            self._disarm(item.id, timer)

    def _arm(self, item_id: int, left_s: float) -> asyncio.TimerHandle | None:
        if math.isinf(left_s):
            return None
        return asyncio.get_running_loop().call_later(left_s, self._expire, item_id)

    def _disarm(self, item_id: int, timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()
        self._expired.discard(item_id)
        self._tasks.pop(item_id, None)
        self._release(item_id)

    def _release(self, item_id: int) -> None:
        size = self._sizes.pop(item_id, None)
        if size is not None:
            self._share.end(size)

    def _expire(self, item_id: int) -> None:
        if task := self._tasks.get(item_id):
            self._expired.add(item_id)
            task.cancel()

    def _cause(self, item_id: int, error: BaseException) -> BaseException:
        if isinstance(error, asyncio.CancelledError) and item_id in self._expired:
            return deadline_exceeded("the time was up before the answer was there")
        return error

    def _end(self, item_id: int, error: BaseException) -> None:
        self._push(item_id, b"", to_item_status(released(error)))

    def _push(self, item_id: int, payload: bytes, status: common_pb2.ItemStatus | None) -> None:
        self._ready.append((item_id, payload, status))
        self._untaken_bytes += len(payload)
        self._finished += status is not None
        self._wake.set()
        if len(self._ready) > MAX_UNTAKEN:
            self._cut_off(f"{len(self._ready)} results wait to be taken")

    async def _write(self, context: Any) -> None:
        """Send whatever is ready in one frame, as often as the peer's credits allow; results gather
        while a write is in flight. A ping is answered without credits.
        """
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._ping or self._says_draining or (self._ready and self._result_credits > 0):
                freed, self._finished = self._finished, 0
                pong, self._ping = self._ping, 0
                draining, self._says_draining = self._says_draining, False
                frame = self._frame(credits=freed, pong=pong, draining=draining)
                count = min(len(self._ready), self._result_credits, FRAME_RESULTS)
                self._fill(frame.results, count)
                self._result_credits -= len(frame.results)
                await context.write(frame)
                self._taken += count
                self._room.set()
            if self._closing and not self._ready and not self._tasks:
                return

    def _fill(self, results: Any, count: int) -> None:
        """Move at most `count` results into a frame; fewer where they are large, but always one."""
        size, ready = 0, self._ready
        for number in range(count):
            item_id, payload, status = ready.popleft()
            size += len(payload)
            if size > FRAME_BYTES and number:
                ready.appendleft((item_id, payload, status))
                return
            self._untaken_bytes -= len(payload)
            result = results.add(id=item_id, payload=payload)
            if status is OK:
                result.status.SetInParent()
            elif status is not None:
                result.status.CopyFrom(status)
