"""Facts about agent runs, from router to router, through a stream of the store: a router that
starts reads those of the last day first.

While the store is away facts wait in the outbox, up to its bound, and each router keeps runs by
itself.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import Any

import redis.asyncio
from penstock.router.runs.facts import Fact, Outbox
from penstock.router.runs.runs import Runs
from penstock.service.clock import Clock
from penstock.service.store_connections import READ_WAIT_MS
from penstock.service.work_stream import LOST, stop

STREAM = "penstock:runs"
KEPT = 200_000
"""Facts that the stream holds, about."""
KEPT_MS = 24 * 3600 * 1000
MAX_BATCH = 500
RETRY_AFTER_S = 0.5


class RunStream:
    """Sends this router's facts and reads the others'. Owner must `close` it."""

    def __init__(
        self, store: redis.asyncio.Redis, runs: Runs, outbox: Outbox, clock: Clock
    ) -> None:
        self._store = store
        self._runs = runs
        self._outbox = outbox
        self._clock = clock
        self._own_id = secrets.token_hex(8)
        self._loops: list[asyncio.Task[None]] = []
        self._last_id = ""

    def start(self) -> None:
        """Begin to send and to read."""
        loop = asyncio.get_running_loop()
        self._loops = [loop.create_task(self._write()), loop.create_task(self._read())]

    async def close(self) -> None:
        """Stop, when what waits has been sent or cannot be."""
        await stop(self._loops)
        if self._outbox:
            try:
                await self._send()
            except LOST:
                self._outbox.clear()

    async def _write(self) -> None:
        while True:
            await self._outbox.wait()
            try:
                await self._send()
            except LOST:
                await self._clock.sleep(RETRY_AFTER_S)

    async def _send(self) -> None:
        facts = self._outbox.first(MAX_BATCH)
        async with self._store.pipeline(transaction=True) as pipe:
            for fact in facts:
                pipe.xadd(
                    STREAM,
                    {"by": self._own_id, "fact": json.dumps(fact)},
                    maxlen=KEPT,
                    approximate=True,
                )
            await pipe.execute()
        self._outbox.drop(len(facts))

    async def _read(self) -> None:
        while True:
            try:
                if not self._last_id:
                    self._last_id = str(max(0, await self._now_ms() - KEPT_MS))
                await self._take()
            except LOST:
                await self._clock.sleep(RETRY_AFTER_S)

    async def _take(self) -> None:
        answer: Any = await self._store.xread(
            {STREAM: self._last_id}, count=MAX_BATCH, block=READ_WAIT_MS
        )
        if not answer:
            return
        now_ms = await self._now_ms()
        for entry_id, fields in answer[0][1]:
            if fields[b"by"] != self._own_id.encode():
                age_s = max(0, now_ms - int(entry_id.partition(b"-")[0])) / 1e3
                self._runs.learn(Fact(*json.loads(fields[b"fact"])), age_s)
            self._last_id = entry_id.decode()

    async def _now_ms(self) -> int:
        seconds, micros = await self._store.time()
        return int(seconds) * 1000 + int(micros) // 1000
