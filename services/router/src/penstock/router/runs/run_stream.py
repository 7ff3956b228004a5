"""Facts about agent runs, from router to router, through a Redis stream: a router that starts reads
those of the last day first.

A fact that cannot be told because Redis is away waits, up to a bound; the routers then keep runs
each by themselves.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import deque
from typing import Any

import redis.asyncio
from penstock.router.runs.runs import Fact, Runs
from penstock.service.clock import Clock
from penstock.service.work_stream import LOST, stop

STREAM = "penstock:runs"
KEPT = 200_000
"""Facts that the stream holds, about; and a router that cannot tell."""
KEPT_MS = 24 * 3600 * 1000
BLOCK_MS = 1000
AT_ONCE = 500


class RunStream:
    """Tells this router's facts and learns the others'. Owner must `close` it."""

    def __init__(self, store: redis.asyncio.Redis, runs: Runs, clock: Clock) -> None:
        self._store, self._runs, self._clock = store, runs, clock
        self._own = secrets.token_hex(8)
        self._outbox: deque[Fact] = deque(maxlen=KEPT)
        self._wake = asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []
        self._seen = ""
        runs.tell = self._tell

    def start(self) -> None:
        """Begin to tell and to learn."""
        loop = asyncio.get_running_loop()
        self._loops = [loop.create_task(self._write()), loop.create_task(self._read())]

    async def close(self) -> None:
        """Stop, when what waits to be told has been told or cannot be."""
        await stop(self._loops)
        if self._outbox:
            try:
                await self._send()
            except LOST:
                self._outbox.clear()

    def _tell(self, fact: Fact) -> None:
        self._outbox.append(fact)
        self._wake.set()

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._outbox:
                try:
                    await self._send()
                except LOST:
                    await self._clock.sleep(0.5)

    async def _send(self) -> None:
        facts = [self._outbox[index] for index in range(min(len(self._outbox), AT_ONCE))]
        async with self._store.pipeline(transaction=True) as pipe:
            for fact in facts:
                pipe.xadd(
                    STREAM,
                    {"by": self._own, "fact": json.dumps(fact)},
                    maxlen=KEPT,
                    approximate=True,
                )
            await pipe.execute()
        for _ in facts:
            self._outbox.popleft()

    async def _read(self) -> None:
        while True:
            try:
                if not self._seen:
                    self._seen = str(max(0, await self._now_ms() - KEPT_MS))
                await self._take()
            except LOST:
                await self._clock.sleep(0.5)

    async def _take(self) -> None:
        answer: Any = await self._store.xread({STREAM: self._seen}, count=AT_ONCE, block=BLOCK_MS)
        if not answer:
            return
        now_ms = await self._now_ms()
        for entry_id, fields in answer[0][1]:
            if fields[b"by"] != self._own.encode():
                age_s = max(0, now_ms - int(entry_id.partition(b"-")[0])) / 1e3
                self._runs.learn(Fact(*json.loads(fields[b"fact"])), age_s)
            self._seen = entry_id.decode()

    async def _now_ms(self) -> int:
        seconds, micros = await self._store.time()
        return int(seconds) * 1000 + int(micros) // 1000
