"""A work queue: a stream of the store with a consumer group, so that each entry is handled by one
router at a time and leaves when it is done.

An entry belongs to the router that read it for as long as that router renews its claim; one that
crashed or stalled loses its entries to the others after the lease, and stops handling them as soon
as it notices. Handling may therefore happen twice, at the same time even: what handles must fence
itself, and raise TakenOver where the work is no longer its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import redis.asyncio
from penstock.service.clock import Clock
from penstock.service.store_connections import READ_WAIT_MS
from redis.exceptions import RedisError, ResponseError

log = logging.getLogger(__name__)

GROUP = "routers"
LOST = (RedisError, OSError, TimeoutError)

# KEYS: stream. ARGV: group, consumer, entries. Renews the claim on each entry that still belongs to
# the consumer; returns the others.
RENEW = """
local lost = {}
for i = 3, #ARGV do
  local pending = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1)[1]
  if pending and pending[2] == ARGV[2] then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'JUSTID')
  else
    lost[#lost + 1] = ARGV[i]
  end
end
return lost
"""


class TakenOver(Exception):
    """The work belongs to somebody else now; its entry is left to them."""


async def stop(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel tasks until they have ended: a client that is connecting may swallow one
    cancellation.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=0.1)


class WorkStream:
    """Reads a stream and hands the value `id` of each entry to `handle`, several at a time.

    Owner must `close` it.
    """

    def __init__(
        self,
        store: redis.asyncio.Redis,
        stream: str,
        handle: Callable[[str], Awaitable[None]],
        clock: Clock,
        *,
        slots: int = 16,
        lease_ms: int = 5_000,
    ) -> None:
        self._store = store
        self._stream = stream
        self._handle = handle
        self._clock = clock
        self._slots = slots
        self._lease_ms = lease_ms
        self._block_ms = max(1, min(READ_WAIT_MS, lease_ms // 2))
        """As long as the next search for lost entries may wait."""
        self._consumer = secrets.token_hex(8)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._loops: list[asyncio.Task[None]] = []
        self._claimed_at = float("-inf")
        self._cursor: bytes | str = "0-0"
        """Where the search for lost entries goes on: one search sees a part of those pending."""

    def start(self) -> None:
        """Begin to read."""
        loop = asyncio.get_running_loop()
        self._loops = [loop.create_task(self._read()), loop.create_task(self._renew())]

    async def close(self) -> None:
        """Stop; what is being handled stays pending, and another router takes it over."""
        await stop([*self._loops, *self._running.values()])

    async def _read(self) -> None:
        ready = False
        while True:
            try:
                if not ready:
                    await self._make_group()
                    ready = True
                await self._take_some()
            except ResponseError:
                ready = False
                await self._clock.sleep(0.2)
            except LOST:
                await self._clock.sleep(0.5)

    async def _make_group(self) -> None:
        try:
            await self._store.xgroup_create(self._stream, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def _take_some(self) -> None:
        room = self._slots - len(self._running)
        if room <= 0:
            await asyncio.wait(self._running.values(), return_when=asyncio.FIRST_COMPLETED)
            return
        now = self._clock.monotonic()
        if now - self._claimed_at >= self._lease_ms / 2e3:
            self._claimed_at = now
            self._cursor, entries, *_ = await self._store.xautoclaim(
                self._stream,
                GROUP,
                self._consumer,
                min_idle_time=self._lease_ms,
                start_id=self._cursor,
                count=room,
            )
            self._begin(entries)
            room -= len(entries)
        if room > 0:
            streams = await self._store.xreadgroup(
                GROUP, self._consumer, {self._stream: ">"}, count=room, block=self._block_ms
            )
            if isinstance(streams, dict):  # RESP3
                for parts in streams.values():
                    self._begin(parts[0])
            else:
                for _, entries in streams or ():
                    self._begin(entries)

    def _begin(self, entries: Any) -> None:
        for entry_id, fields in entries:
            if not entry_id or not fields:  # deleted by somebody while it was pending
                continue
            name = entry_id.decode()
            if name in self._running:
                continue
            task = asyncio.get_running_loop().create_task(self._serve(name, fields[b"id"].decode()))
            self._running[name] = task
            task.add_done_callback(partial(self._left, name))

    def _left(self, entry: str, _: asyncio.Task[None]) -> None:
        self._running.pop(entry, None)

    async def _serve(self, entry: str, work_id: str) -> None:
        """Handle and then acknowledge; after a crash in between, the next handling finds that there
        is nothing left to do.
        """
        try:
            await self._handle(work_id)
            async with self._store.pipeline(transaction=True) as pipe:
                pipe.xack(self._stream, GROUP, entry)
                pipe.xdel(self._stream, entry)
                await pipe.execute()
        except TakenOver:
            log.info("%s: %s was taken over by another router", self._stream, work_id)
        except LOST:
            log.warning("%s: %s stays pending, the store is unavailable", self._stream, work_id)
        except Exception:
            log.exception("%s: %s stays pending", self._stream, work_id)

    async def _renew(self) -> None:
        """Keep the claim on what is being handled, and stop handling what others have claimed."""
        while True:
            await self._clock.sleep(self._lease_ms / 3e3)
            if not self._running:
                continue
            given = [GROUP, self._consumer, *self._running]
            with contextlib.suppress(*LOST):
                for entry in await self._store.eval(RENEW, 1, self._stream, *given):
                    task = self._running.get(entry.decode())
                    if task is not None:
                        task.cancel()
