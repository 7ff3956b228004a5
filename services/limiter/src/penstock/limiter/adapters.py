"""The workshop: the books in Redis, by one script. What is asked while a batch is in flight goes together; a lost store is said at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any

import redis.asyncio
from penstock.core.clock import Clock
from penstock.core.errors import Fault
from penstock.core.gather import Gather
from penstock.limiter.policy import Question, Reply, Usage, replay
from penstock.limiter.rules import Counter, organisation_prefix
from redis.exceptions import NoScriptError, RedisError, ResponseError

log = logging.getLogger(__name__)
SCRIPT = files("penstock.limiter").joinpath("books.lua").read_text(encoding="utf-8")
CHANGES = "penstock:limiter:changes"
"""Stream of what operators changed."""
CHANGES_KEPT = 100_000


class StoreLost(Exception):
    """The store does not answer; it is looked for in the background."""


class Store:
    """The books of every organisation. Owns its client.

    Args:
        now_us: time to use instead of the store's own, for replays; 0 means the store's.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        clock: Clock,
        timeout_s: float = 0.25,
        pause_s: float = 1.0,
        now_us: Callable[[], int] = lambda: 0,
    ) -> None:
        self.client = client
        self._clock = clock
        self._timeout_s = timeout_s
        self._pause_s = pause_s
        self._now_us = now_us
        self._probe: asyncio.Task[None] | None = None
        """Runs while the store is lost: nobody who asks waits for it meanwhile."""
        self._sha = ""
        self._gather: Gather[tuple[str, ...], list[Any]] = Gather(self._ask)

    async def reserve(self, organisation: str, hold_id: str, path: Sequence[Counter], ask: Question) -> Reply:
        """See `Books.reserve`; raises StoreLost."""
        found = await self._run(
            "reserve", organisation, hold_id, int(ask.lease), _Rows(path), ask.most, ask.usual, ask.least, ask.ttl_ms,
            ask.priority, int(ask.unpriced), ask.share,
        )  # fmt: skip
        alerts = tuple((found[index] - 1, found[index + 1]) for index in range(8, len(found), 2))
        return Reply(
            found[0], found[1] - 1, found[2], int(found[3]), (int(found[4]), int(found[5]), int(found[6])), bool(found[7]), alerts
        )  # fmt: skip

    async def extend(self, organisation: str, hold_id: str, most: Sequence[int]) -> Reply:
        """See `Books.extend`; raises StoreLost."""
        found = await self._run("extend", organisation, hold_id, most)
        return Reply(found[0], found[1] - 1, found[2], int(found[3]))

    async def settle(self, organisation: str, hold_id: str, spent: Sequence[int]) -> tuple[bool, tuple[int, int, int]]:
        """See `Books.settle`; raises StoreLost."""
        found = await self._run("settle", organisation, hold_id, spent)
        return bool(found[0]), (int(found[1]), int(found[2]), int(found[3]))

    async def renew(
        self, organisation: str, lease_id: str, spent: Sequence[int], wanted: Sequence[int], ask: Question
    ) -> Reply:
        """See `Books.renew`; raises StoreLost."""
        found = await self._run("renew", organisation, lease_id, spent, wanted, ask.share, ask.priority)
        return Reply(found[0], found[1] - 1, found[2], int(found[3]), (int(found[4]), int(found[5]), int(found[6])))

    async def usage(self, organisation: str, path: Sequence[Counter]) -> list[Usage]:
        """See `Books.usage`; raises StoreLost."""
        found = [int(value) for value in await self._run("usage", organisation, _Rows(path))]
        return [Usage(*found[index : index + 4]) for index in range(0, len(found), 4)]

    async def adjust(self, organisation: str, counter: Counter, amount: int, *, reset: bool = False) -> tuple[int, int]:
        """Add to what is committed, or forget it; returns what was and what is. Raises StoreLost."""
        found = await self._run("adjust", organisation, counter.row(), amount, int(reset))
        return int(found[0]), int(found[1])

    async def drain(self, organisation: str, on: bool) -> int:
        """Refuse new holds or not; returns the number of open ones. Raises StoreLost."""
        return int((await self._run("drain", organisation, int(on)))[0])

    async def set_limit(self, organisation: str, counter: Counter, limit: int | None) -> None:
        """Put another limit on one counter, or clear it."""
        key = organisation_prefix(organisation) + "limits"
        if limit is None:
            await self.client.hdel(key, counter.key)
        else:
            await self.client.hset(key, counter.key, str(limit))

    async def note_change(self, change: Mapping[str, str]) -> None:
        """Write one line of the audit log."""
        entry: dict[Any, Any] = dict(change)
        await self.client.xadd(CHANGES, entry, maxlen=CHANGES_KEPT, approximate=True)

    async def changes(self, most: int) -> list[tuple[int, dict[str, str]]]:
        """The latest lines of the audit log, newest first, with their Unix milliseconds."""
        rows: list[Any] = await self.client.xrevrange(CHANGES, count=most) or []
        return [
            (int(at.split(b"-")[0]), {key.decode(): value.decode() for key, value in fields.items()})
            for at, fields in rows
        ]

    async def verify(self, organisation: str) -> tuple[int, list[str]]:
        """Replay an organisation's ledger; returns the number of entries and the counters that differ from their replay."""
        prefix = organisation_prefix(organisation)
        rows: list[Any] = await self.client.xrange(prefix + "ledger") or []
        lines = [line.decode().rsplit(" ", 3) for _, fields in rows for line in fields[b"d"].split(b"\n")]
        state = replay([(key, int(window), int(committed), int(held)) for key, window, committed, held in lines])
        differing = []
        keys: set[Any] = await self.client.smembers(prefix + "counters")
        for key in keys:
            window, committed, held = [int(value or 0) for value in await self.client.hmget(key, "w", "c", "h")]
            at, spent, reserved = state.get(key.decode(), (window, 0, 0))
            # A window in which nothing has been booked yet has no entry: it is empty.
            if ((spent, reserved) if at == window else (0, 0)) != (committed, held):
                differing.append(key.decode())
        return len(rows), sorted(differing)

    async def _run(self, operation: str, organisation: str, *arguments: Any) -> list[Any]:
        parts = [argument.json if isinstance(argument, _Rows) else json.dumps(argument) for argument in arguments]
        text = f"[{','.join(parts)}]"
        try:
            return await self._gather((operation, organisation_prefix(organisation), text))
        except Fault as fault:
            raise StoreLost(fault.message) from None

    async def _ask(self, batch: Sequence[tuple[str, ...]]) -> list[list[Any] | Fault]:
        if self._probe is not None:
            raise StoreLost
        try:
            async with asyncio.timeout(self._timeout_s + 2e-4 * len(batch)):
                return await self._pipeline(batch)
        except (TimeoutError, RedisError, OSError) as error:
            log.warning("the store does not answer (%s); rules do without it", type(error).__name__)
            self._probe = asyncio.create_task(self._until_back(), name="probe the store")
            raise StoreLost(type(error).__name__) from None

    async def _until_back(self) -> None:
        """Ask the store by itself until it answers again."""
        while True:
            with contextlib.suppress(TimeoutError, RedisError, OSError):
                async with asyncio.timeout(self._timeout_s):
                    await self.client.ping()
                log.warning("the store answers again")
                self._probe = None
                return
            await self._clock.sleep(self._pause_s)

    async def close(self) -> None:
        """Stop looking for a lost store, and let the client go."""
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.wait([self._probe])
        await self.client.aclose()

    async def _pipeline(self, batch: Sequence[tuple[str, ...]]) -> list[list[Any] | Fault]:
        if not self._sha:
            self._sha = await self.client.script_load(SCRIPT)
        pipe, now = self.client.pipeline(transaction=False), str(self._now_us())
        for operation, prefix, text in batch:
            pipe.evalsha(self._sha, 1, prefix + "holds", operation, now, prefix, text)
        answers = await pipe.execute(raise_on_error=False)
        if any(isinstance(answer, NoScriptError) for answer in answers):
            self._sha = ""  # the store was restarted or its scripts flushed: none of the batch has run
            return await self._pipeline(batch)
        for answer in answers:
            if isinstance(answer, ResponseError):
                raise RuntimeError(str(answer))
            if isinstance(answer, Exception):
                raise answer
        return answers


class _Rows:
    """A path as JSON, made once for as long as its windows last."""

    def __init__(self, path: Sequence[Counter]) -> None:
        self.json = _rows(tuple(path))


@lru_cache(maxsize=16_384)
def _rows(path: tuple[Counter, ...]) -> str:
    return json.dumps([counter.row() for counter in path])
