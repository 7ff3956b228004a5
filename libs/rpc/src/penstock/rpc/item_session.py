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
from penstock.rpc.dispatch import FRAME_BYTES, Dispatcher, PendingCall, Rpc
from penstock.rpc.errors import (
    OK,
    deadline_exceeded,
    exhausted,
    invalid,
    to_item_status,
    unavailable,
)
from penstock.service.clock import Clock

ITEM_WINDOW = 1024
"""Items that a peer may have in flight on one stream."""

FRAME_RESULTS = 256
"""Results in one frame at most, so that a frame stays small."""

ItemCall = Callable[[common_pb2.CallContext, float], Call]
"""Makes an item's call from its context: an internal endpoint believes it, a public one takes only
what a caller may say.
"""


class Session:
    """One open stream.

    `context` is grpc.aio's; frames are messages of the service's own Exchange types.
    """

    def __init__(
        self, dispatcher: Dispatcher, frame: type[Message], clock: Clock, item_call: ItemCall
    ) -> None:
        self._dispatcher = dispatcher
        self._frame: Any = frame
        self._clock = clock
        self._item_call = item_call
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._expired: set[int] = set()
        self._ready: deque[tuple[int, bytes, common_pb2.ItemStatus | None]] = deque()
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._result_credits = 0
        self._ping = 0
        self._finished = 0
        self._closing = False
        self._draining = False

    async def run(self, context: Any, eof: object) -> None:
        """Serve until the peer has closed its side or the session drains, and every item has ended,
        or the stream is cancelled.
        """
        await context.write(self._frame(credits=ITEM_WINDOW))
        reader = asyncio.create_task(self._read(context, eof))
        writer = asyncio.create_task(self._write(context))
        try:
            await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
            if reader.done():
                reader.result()
            await writer
        finally:
            await self._close(reader, writer)

    def drain(self) -> None:
        """Refuse further items; the stream ends once those that are there have been answered."""
        self._draining = True
        self._end_when_idle()

    def _end_when_idle(self) -> None:
        self._closing = True
        self._wake.set()

    async def _read(self, context: Any, eof: object) -> None:
        while (frame := await context.read()) is not eof:
            self._take(frame)
        self._end_when_idle()

    async def _close(self, *own_tasks: asyncio.Task[None]) -> None:
        tasks = [*own_tasks, *self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _take(self, frame: Any) -> None:
        if frame.credits:
            self._result_credits += frame.credits
            self._wake.set()
            self._room.set()
        if frame.ping:
            self._ping = frame.ping
            self._wake.set()
        for item_id in frame.cancelled_ids:
            if task := self._tasks.get(item_id):
                task.cancel()
        now = self._clock.monotonic()
        for item in frame.items:
            self._start(item, now)

    def _start(self, item: common_pb2.Item, now: float) -> None:
        rpc = self._dispatcher.rpcs.get(item.method)
        if rpc is None:
            service = self._dispatcher.service.full_name
            self._end(item.id, invalid("method", f"{item.method!r} is not a method of {service}"))
            return
        if self._draining:
            self._end(item.id, unavailable("this process is stopping; try another"))
            return
        if len(self._tasks) >= ITEM_WINDOW:
            message = "more items in flight than the stream has credits for"
            self._end(item.id, exhausted(message))
            return
        call = self._item_call(item.context, now)
        left_s = call.deadline_s - now
        if left_s <= 0:
            self._end(item.id, deadline_exceeded("no time was left when the item arrived"))
            return
        if rpc.streams:
            work = self._serve_stream(item, rpc, call, left_s)
        else:
            pending = self._begin(item, rpc, call, left_s)
            if pending is None:
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

    def _expire(self, item_id: int) -> None:
        if task := self._tasks.get(item_id):
            self._expired.add(item_id)
            task.cancel()

    def _cause(self, item_id: int, error: BaseException) -> BaseException:
        if isinstance(error, asyncio.CancelledError) and item_id in self._expired:
            return deadline_exceeded("the time was up before the answer was there")
        return error

    def _end(self, item_id: int, error: BaseException) -> None:
        self._push(item_id, b"", to_item_status(error))

    def _push(self, item_id: int, payload: bytes, status: common_pb2.ItemStatus | None) -> None:
        self._ready.append((item_id, payload, status))
        self._finished += status is not None
        self._wake.set()

    async def _write(self, context: Any) -> None:
        """Send whatever is ready in one frame, as often as the peer's credits allow; results gather
        while a write is in flight. A ping is answered without credits.
        """
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._ping or (self._ready and self._result_credits > 0):
                freed, self._finished = self._finished, 0
                pong, self._ping = self._ping, 0
                frame = self._frame(credits=freed, pong=pong)
                count = min(len(self._ready), self._result_credits, FRAME_RESULTS)
                self._fill(frame.results, count)
                self._result_credits -= len(frame.results)
                await context.write(frame)
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
            result = results.add(id=item_id, payload=payload)
            if status is OK:
                result.status.SetInParent()
            elif status is not None:
                result.status.CopyFrom(status)
