"""The workshop: the books in Redis, by one script.

What is asked while a batch is in flight goes together; a lost store is said at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import redis.asyncio
from penstock.limiter.decisions import Question, Reply, Usage
from penstock.limiter.patience import LEARNT, Patience
from penstock.limiter.replay import replay
from penstock.limiter.rules import Counter, organisation_prefix
from penstock.limiter.script import (
    SCRIPT,
    Rows,
    States,
    arguments,
    extended,
    present,
    renewed,
    reserved,
    states,
    to_reserve,
    used,
)
from penstock.rpc.errors import Fault
from penstock.rpc.micro_batch import MicroBatcher
from penstock.service.clock import Clock
from redis.exceptions import (
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

log = logging.getLogger(__name__)
CHANGES = "penstock:limiter:changes"
"""Stream of what operators changed."""
CHANGES_KEPT = 100_000
LEDGER_KEPT = 1_000_000
"""Entries of a ledger that are kept one by one; older ones are folded into a sum for each counter,
which is where a replay begins.
"""
PAGE = 10_000
PROBE = "penstock:limiter:probe"
CANNOT_WRITE = ("OOM ", "MISCONF ", "READONLY ", "NOREPLICAS ", "MASTERDOWN ", "CLUSTERDOWN ")
"""Errors of a store that is there and keeps no books: no memory, no disk, a replica."""
OWED_KEPT = 100_000
"""Settlements that are kept while the store is lost; beyond that, the oldest is left to its hold's
expiry.
"""
PAID_AT_ONCE = 256
TICKS = 4
"""The patience for a batch ends after so many turns of its timer, so that a stall of this process
is not laid to the store.
"""


class StoreLost(Exception):
    """The store does not answer; it is looked for in the background."""


class Store:
    """The books of every organisation. Owns its client.

    A question waits for as long as `Patience` says. Then the store counts as slow until its answer
    is there, and after `timeout_s` as lost until a probe is answered. Meanwhile questions raise
    StoreLost at once, except those that say how long they can wait: they are asked again as soon as
    the store answers, which is safe because every operation is idempotent by the hold's id. What
    could not be settled is owed, and settled when the store answers again.

    Args:
        patience_s: wait for a store that has been quick; None means `timeout_s`.
        now_us: time to use instead of the store's own, for replays; 0 means the store's.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        clock: Clock,
        timeout_s: float = 0.25,
        pause_s: float = 1.0,
        now_us: Callable[[], int] = lambda: 0,
        patience_s: float | None = None,
        ledger_kept: int = LEDGER_KEPT,
    ) -> None:
        self.client = client
        self._clock = clock
        self._timeout_s = timeout_s
        self._pause_s = pause_s
        self._now_us = now_us
        self._probe: asyncio.Task[None] | None = None
        """Runs while the store is lost: nobody who asks waits for it meanwhile."""
        self._ledger_kept = ledger_kept
        self.restarted_s = -math.inf
        """When the store was last found to have been restarted, by the monotonic clock."""
        self._slow = False
        """True while a batch in flight is overdue."""
        self._answers = asyncio.Event()
        """Set while the store is neither slow nor lost."""
        self._answers.set()
        self._patience = Patience(timeout_s if patience_s is None else patience_s, timeout_s)
        self._owed: dict[tuple[str, str], tuple[str, ...]] = {}
        self._paying: asyncio.Task[None] | None = None
        self._sha = ""
        self._gather: MicroBatcher[tuple[str, ...], list[Any]] = MicroBatcher(self._ask)

    async def reserve(
        self,
        organisation: str,
        hold_id: str,
        path: Sequence[Counter],
        ask: Question,
        wait_s: float = 0.0,
    ) -> Reply:
        """The script's `reserve`; raises StoreLost where the store has not answered within
        `wait_s`, or its usual time if that is longer.

        A hold without a time to live has no id that the store remembers, so it must not wait.
        """
        return reserved(
            await self._run("reserve", organisation, to_reserve(hold_id, path, ask), wait_s)
        )

    async def extend(self, organisation: str, hold_id: str, most: Sequence[int]) -> Reply:
        """The script's `extend`; raises StoreLost."""
        return extended(
            await self._run("extend", organisation, arguments(hold_id, most)), organisation
        )

    async def settle(
        self,
        organisation: str,
        hold_id: str,
        spent: Sequence[int],
        path: Sequence[Counter] = (),
        unbooked: Sequence[Counter] = (),
    ) -> tuple[bool, tuple[int, int, int]]:
        """The script's `settle`; raises StoreLost, and then does it when the store answers again.

        Args:
            path: where the spend is booked if the store does not know the hold, for it has
                forgotten it.
            unbooked: the same for a settlement that is owed, which may come when a settled hold is
                no longer remembered.
        """
        try:
            found = await self._run("settle", organisation, arguments(hold_id, spent, []))
            if found[0] < 0 and path:
                found = await self._run(
                    "settle", organisation, arguments(hold_id, spent, Rows(path))
                )
        except StoreLost:
            self.owe(organisation, hold_id, spent, unbooked)
            raise
        return found[0] > 0, (int(found[1]), int(found[2]), int(found[3]))

    def owe(
        self, organisation: str, hold_id: str, spent: Sequence[int], path: Sequence[Counter] = ()
    ) -> None:
        """Settle a hold as soon as the store answers again. Doing it twice books nothing twice."""
        text = arguments(hold_id, list(spent), Rows(path))
        self._owed[organisation, hold_id] = ("settle", organisation_prefix(organisation), text)
        if len(self._owed) > OWED_KEPT:
            self._owed.pop(next(iter(self._owed)))

    async def renew(
        self,
        organisation: str,
        lease_id: str,
        spent: Sequence[int],
        wanted: Sequence[int],
        ask: Question,
    ) -> Reply:
        """The script's `renew`; raises StoreLost."""
        text = arguments(lease_id, spent, wanted, ask.share, ask.priority)
        return renewed(await self._run("renew", organisation, text), organisation)

    async def usage(self, organisation: str, path: Sequence[Counter]) -> list[Usage]:
        """The script's `usage`; raises StoreLost, and WindowPassed for a path of another time."""
        return used(await self._run("usage", organisation, arguments(Rows(path))))

    async def adjust(
        self, organisation: str, counter: Counter, amount: int, *, reset: bool = False
    ) -> tuple[int, int]:
        """Add to what is committed, or forget it; returns what was and what is.

        Raises StoreLost and WindowPassed.
        """
        before, now = present(
            await self._run("adjust", organisation, arguments(counter.row(), amount, int(reset)))
        )
        return before, now

    async def drain(self, organisation: str, on: bool) -> int:
        """Refuse new holds or not; returns the number of open ones. Raises StoreLost."""
        return int((await self._run("drain", organisation, arguments(int(on))))[0])

    async def set_limit(self, organisation: str, counter: Counter, limit: int | None) -> None:
        """Put another limit on one counter, or clear it. Raises StoreLost."""
        key = organisation_prefix(organisation) + "limits"
        async with _losing():
            if limit is None:
                await self.client.hdel(key, counter.key)
            else:
                await self.client.hset(key, counter.key, str(limit))

    async def note_change(self, change: Mapping[str, str]) -> None:
        """Write one line of the audit log. Raises StoreLost."""
        entry: dict[Any, Any] = dict(change)
        async with _losing():
            await self.client.xadd(CHANGES, entry, maxlen=CHANGES_KEPT, approximate=True)

    async def changes(self, most: int) -> list[tuple[int, dict[str, str]]]:
        """The latest lines of the audit log, newest first, with their Unix milliseconds.

        Raises StoreLost.
        """
        async with _losing():
            rows: list[Any] = await self.client.xrevrange(CHANGES, count=most) or []
        return [
            (
                int(at.split(b"-")[0]),
                {key.decode(): value.decode() for key, value in fields.items()},
            )
            for at, fields in rows
        ]

    async def verify(self, organisation: str) -> tuple[int, list[str]]:
        """Replay an organisation's ledger; returns how many entries it has and the counters that
        differ. Raises StoreLost.
        """
        while True:
            last, first, sums, *rest = await self._run("snapshot", organisation, arguments())
            texts = [text.decode() for text in rest]
            replayed, kept = states(texts[: 2 * sums]), states(texts[2 * sums :])
            async with _losing():
                entries, replayed = await self._replay(
                    organisation_prefix(organisation) + "ledger", last, replayed
                )
                oldest = await self._first(organisation_prefix(organisation) + "ledger")
            if oldest == first:  # otherwise entries were folded meanwhile: once more
                break
        differing = []
        for key, (window, committed, held) in kept.items():
            at, spent, reserved = replayed.get(key, (window, 0, 0))
            # A window in which nothing has been booked yet has no entry: it is empty.
            if ((spent, reserved) if at == window else (0, 0)) != (committed, held):
                differing.append(key)
        return entries, sorted(differing)

    async def _first(self, ledger: str) -> bytes:
        rows: list[Any] = await self.client.xrange(ledger, count=1) or []
        return rows[0][0] if rows else b"0-0"

    async def _replay(self, ledger: str, last: bytes, state: States) -> tuple[int, States]:
        """Replay what stands in the ledger up to `last`, page by page; returns the number of
        entries too.
        """
        entries, begin = 0, "-"
        while True:
            rows: list[Any] = await self.client.xrange(ledger, begin, last, count=PAGE) or []
            lines = (
                line.decode().rsplit(" ", 3)
                for _, fields in rows
                for line in fields[b"d"].split(b"\n")
            )
            state = replay(
                ((key, int(at), int(spent), int(held)) for key, at, spent, held in lines), state
            )
            entries += len(rows)
            if len(rows) < PAGE:
                return entries, state
            begin = f"({rows[-1][0].decode()}"

    async def _run(
        self, operation: str, organisation: str, text: str, wait_s: float = 0.0
    ) -> list[Any]:
        question = operation, organisation_prefix(organisation), text
        ends_s = asyncio.get_running_loop().time() + wait_s
        while True:
            try:
                return await self._once(question)
            except StoreLost:
                if not wait_s or not await self._answers_before(ends_s):
                    raise

    async def _once(self, question: tuple[str, ...]) -> list[Any]:
        if not self._answers.is_set():
            raise StoreLost
        try:
            return await self._gather(question)
        except Fault as fault:
            raise StoreLost(fault.message) from None

    async def _answers_before(self, ends_s: float) -> bool:
        """Wait for a slow or lost store to answer again; False where it does not by `ends_s` of the
        loop's time.
        """
        try:
            async with asyncio.timeout_at(ends_s):
                await self._answers.wait()
        except TimeoutError:
            return False
        return True

    async def _ask(self, batch: Sequence[tuple[str, ...]]) -> list[list[Any] | Fault]:
        if self._probe is not None:
            raise StoreLost
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._watch(self._patience.for_batch(len(batch)) / TICKS, TICKS)
        try:
            async with asyncio.timeout(self._timeout_s + 2e-4 * len(batch)):
                answers = await self._pipeline(batch)
        except (TimeoutError, RedisError, OSError) as error:
            self._lose(error)
            raise StoreLost(type(error).__name__) from None
        finally:
            self._timer.cancel()
            self._slow = False
            self._tell_whether_it_answers()
        self._patience.learn(len(batch), loop.time() - began)
        self._settle_owed()
        return answers

    def _watch(self, tick_s: float, ticks: int) -> None:
        """Wait for a batch; when the ticks are over, answer those who wait for it."""
        if ticks:
            self._timer = asyncio.get_running_loop().call_later(
                tick_s, self._watch, tick_s, ticks - 1
            )
            return
        self._slow = True
        self._tell_whether_it_answers()
        self._gather.fail_all(StoreLost("slow"))

    def _tell_whether_it_answers(self) -> None:
        (self._answers.clear if self._slow or self._probe is not None else self._answers.set)()

    def _lose(self, error: Exception) -> None:
        log.warning(
            "the store does not answer (%s); applying each rule's `store_loss` setting",
            type(error).__name__,
        )
        self._probe = asyncio.create_task(self._until_back(), name="probe the store")
        self._tell_whether_it_answers()

    async def _until_back(self) -> None:
        """Ask the store by itself until it answers again."""
        while True:
            with contextlib.suppress(TimeoutError, RedisError, OSError, RuntimeError):
                async with asyncio.timeout(self._timeout_s):
                    await self.client.set(
                        PROBE, 1, px=1_000
                    )  # a write: a store that only reads keeps no books
                    await self._meet()
                log.warning("the store answers again")
                self._probe = None
                self._tell_whether_it_answers()
                self._settle_owed()
                return
            await self._clock.sleep(self._pause_s)

    async def warm(self) -> None:
        """Meet the store before anybody asks.

        One that is away, or hangs already, is looked for as usual, and met when it is found.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._meet()
        except (TimeoutError, RedisError, OSError) as error:
            self._lose(error)

    async def _meet(self) -> None:
        """Connect, load the script and learn the pace: the first who asks waits for none of it, and
        no longer than `Patience` says.
        """
        loop, question = (
            asyncio.get_running_loop(),
            ("usage", organisation_prefix(""), arguments(Rows(()))),
        )
        for turn in range(1 + LEARNT):
            began = loop.time()
            await self._pipeline([question])
            if turn:  # the first one connects and loads
                self._patience.learn(1, loop.time() - began)

    def _settle_owed(self) -> None:
        if self._owed and self._paying is None:
            self._paying = asyncio.create_task(self._pay(), name="settle what is owed")

    async def _pay(self) -> None:
        """Settle what could not be settled; what fails stays owed until the next answer of the
        store.
        """
        try:
            while self._owed:
                part = list(self._owed.items())[:PAID_AT_ONCE]
                await asyncio.gather(*(self._gather(question) for _, question in part))
                for key, question in part:
                    if self._owed.get(key) is question:
                        del self._owed[key]
        except (StoreLost, Fault):
            log.warning("the store went away again; %d settlements are still owed", len(self._owed))
        finally:
            self._paying = None

    async def close(self) -> None:
        """Stop looking for a lost store, and let the client go."""
        for task in (self._probe, self._paying):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        await self.client.aclose()

    async def _pipeline(self, batch: Sequence[tuple[str, ...]]) -> list[list[Any] | Fault]:
        if not self._sha:
            self._sha = await self.client.script_load(SCRIPT)
        pipe, now = self.client.pipeline(transaction=False), str(self._now_us())
        for operation, prefix, text in batch:
            pipe.evalsha(
                self._sha, 1, prefix + "holds", operation, now, prefix, text, self._ledger_kept
            )
        answers = await pipe.execute(raise_on_error=False)
        if any(isinstance(answer, NoScriptError) for answer in answers):
            # The store was restarted or its scripts were flushed: none of the batch has run, and
            # what it knew last may be lost.
            self._sha, self.restarted_s = "", self._clock.monotonic()
            return await self._pipeline(batch)
        for answer in answers:
            if isinstance(answer, ResponseError) and not _cannot_write(answer):
                raise RuntimeError(str(answer))
            if isinstance(answer, Exception):
                raise answer
        return answers


def _cannot_write(error: ResponseError) -> bool:
    # redis-py takes the code off some messages and makes a class of it; inside a script the code
    # stands in the text
    known = isinstance(error, OutOfMemoryError | ReadOnlyError)
    return known or any(code in f"{error} " for code in CANNOT_WRITE)


@contextlib.asynccontextmanager
async def _losing() -> AsyncIterator[None]:
    """A store that does not answer here is lost like anywhere else."""
    try:
        yield
    except (TimeoutError, RedisError, OSError) as error:
        raise StoreLost(type(error).__name__) from None
