"""The connection to the ledger's store: runs script calls in batches, also when the store is slow
or lost.

A store that refuses connections or cannot write is noticed at once. One that hangs (stopped, cut
off, swapped out) is noticed only by its silence, so each batch has an allowance of time, learned
from the batches before it (`Patience`). The store is

- *slow* from when a batch has used up its allowance until that batch is answered. Its callers get
  StoreLost at once; the batch stays in flight, and the store may still run it.
- *lost* from when a batch fails, or takes longer than `timeout_s`, until a probe in the background
  is answered.

Meanwhile new calls raise StoreLost without being sent, so nobody waits for a store that does not
answer. A caller that can wait says for how long: its call is sent again as soon as the store
answers. That is safe because every operation is idempotent by the hold's id. Settlements that could
not be sent are owed, and sent when the store answers again.

The script decides as soon as it is executed; `durable` waits until what was executed is on the
store's disk. An error that the script meets fails the question that met it and no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import redis.asyncio
from penstock.limiter.counters import organisation_prefix
from penstock.limiter.script import SCRIPT, PathRows, ScriptCall, ScriptReply, to_json
from penstock.limiter.store.errors import (
    STORE_ERRORS,
    StoreLost,
    is_store_failure,
    store_errors_as_lost,
)
from penstock.limiter.store.owed_settlements import OwedSettlements
from penstock.limiter.store.schema import WrongSchema, ensure_schema
from penstock.rpc.errors import Fault, internal
from penstock.rpc.micro_batch import MicroBatcher
from penstock.service.clock import Clock
from penstock.service.durability import Fsyncs, StoreFacts
from penstock.service.work_stream import stop
from redis.exceptions import NoScriptError

log = logging.getLogger(__name__)
PER_CALL_S = 5e-4
"""Part of an allowance for each call of a batch: three times what the script takes."""
MIN_BATCHES = 2
"""Batches after which a store's pace is known; until then the longest allowance applies."""
HALF_LIFE_S = 5.0
"""After this time half of a slow batch's time still counts."""
SLOWNESS_FACTOR = 2.0
"""A batch may take this many times as long as the slowest recent one."""
TIMER_TURNS = 4
"""An allowance ends after this many turns of the loop's timer, so that a stall of this process does
not count against the store.
"""
BATCH_CALL_S = 2e-4
"""Added to the timeout of a batch for each of its calls."""
PROBE_KEY = "penstock:limiter:probe"
READS = frozenset(("usage", "snapshot", "run_read", "run_list"))
"""Operations that write nothing of weight, so that the disk does not delay them."""
NO_COUNTERS = ScriptCall("usage", organisation_prefix(""), to_json(PathRows(())))
"""A script call that does nothing."""


@dataclass(frozen=True)
class StoreTimings:
    """How long the store is waited for.

    Args:
        timeout_s: a batch that takes longer is given up, and the store is lost.
        probe_pause_s: time between two probes of a lost store.
        patience_s: the shortest allowance of a batch, for a store that has been quick; None:
            `timeout_s`.
    """

    timeout_s: float = 0.25
    probe_pause_s: float = 0.05
    patience_s: float | None = None


class Patience:
    """Learns the pace of a store from batches that write, and allows batches time by it.

    What a slow batch has taught fades by time, so that it counts no longer for a store that is
    asked a lot and no less for one that is asked seldom. Times are seconds of the loop.

    Args:
        min_s: the shortest allowance, besides what each call is allowed.
        max_s: the longest allowance, and the first ones.
    """

    def __init__(self, min_s: float, max_s: float) -> None:
        self._min_s = min_s
        self._max_s = max_s
        self._slowest_s = 0.0
        self._learnt_at_s = 0.0
        self._batches = 0

    def record(self, calls: int, took_s: float, now_s: float) -> None:
        """Record what a batch of `calls` took; one that was late counts too."""
        self._batches += 1
        batch_s = min(took_s, self._max_s) - PER_CALL_S * calls
        if batch_s >= self._slowest_at(now_s):
            self._slowest_s, self._learnt_at_s = batch_s, now_s

    def allowance_s(self, calls: int, now_s: float) -> float:
        """How long a batch of `calls` may take before its callers are answered without it."""
        if self._batches < MIN_BATCHES:
            return self._max_s
        recent_s = max(self._min_s, SLOWNESS_FACTOR * self._slowest_at(now_s))
        return min(self._max_s, recent_s + PER_CALL_S * calls)

    def _slowest_at(self, now_s: float) -> float:
        half_lives = (now_s - self._learnt_at_s) / HALF_LIFE_S
        return self._slowest_s * math.exp2(-half_lives)


class StoreConnection:
    """Runs script calls on a store; owns the client.

    Args:
        now_us: the time that the script is given; 0 means the store's own clock.
        state_kinds: what the state of each rule's counters depends on, by rule; for a migration.
        on_connected: is told what the store says of itself, whenever it is found.
        max_ledger_bytes: bytes of each ledger's entries that are kept before older ones are folded.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        clock: Clock,
        timings: StoreTimings,
        now_us: Callable[[], int],
        max_ledger_bytes: int,
        on_connected: Callable[[StoreFacts], None] = lambda _: None,
        state_kinds: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._client = client
        self._clock = clock
        self._timings = timings
        self._now_us = now_us
        self._max_ledger_bytes = max_ledger_bytes
        min_s = timings.timeout_s if timings.patience_s is None else timings.patience_s
        self._patience = Patience(min_s, timings.timeout_s)
        self._batches: MicroBatcher[ScriptCall, ScriptReply] = MicroBatcher(self._run_batch)
        self._script_sha = ""
        self._timer: asyncio.TimerHandle | None = None
        self._probe: asyncio.Task[None] | None = None
        """Runs while the store is lost."""
        self._is_slow = False
        self._is_closed = False
        self._answering = asyncio.Event()
        """Set while the store is neither slow nor lost."""
        self._answering.set()
        self.restarted_s = -math.inf
        """When the store was last found to have been restarted, by the monotonic clock."""
        self._on_connected = on_connected
        self._state_kinds = state_kinds
        self._fsyncs = Fsyncs(client)
        self.owed = OwedSettlements(self._batches, self.durable)

    @property
    def is_slow(self) -> bool:
        """True while a batch in flight has used up its allowance."""
        return self._is_slow

    @property
    def is_lost(self) -> bool:
        """True from a failure of the store until a probe is answered."""
        return self._probe is not None

    async def connect(self) -> None:
        """Connect and learn the store's pace before the first caller; a lost store is probed.

        Raises:
            WrongSchema: the store's ledger is of another schema.
        """
        try:
            async with asyncio.timeout(self._timings.timeout_s):
                await self._warm_up()
        except STORE_ERRORS as error:
            self._lose(error)

    async def run(self, call: ScriptCall, wait_s: float = 0.0) -> ScriptReply:
        """The reply of one script call.

        Args:
            wait_s: how long to wait for a slow or lost store to answer, and then run it again.

        Raises:
            StoreLost: the store does not answer.
        """
        ends_s = asyncio.get_running_loop().time() + wait_s
        while True:
            try:
                return await self._run_once(call)
            except StoreLost:
                if not await self.answers_before(ends_s):
                    raise

    async def answers_before(self, ends_s: float) -> bool:
        """Wait until the store answers; False if it does not by `ends_s` of the loop's time."""
        if asyncio.get_running_loop().time() >= ends_s:
            return False
        try:
            async with asyncio.timeout_at(ends_s):
                await self._answering.wait()
        except TimeoutError:
            return False
        return True

    async def durable(self) -> None:
        """Return when everything that the store has executed is on its disk; raises StoreLost."""
        with store_errors_as_lost():
            await self._fsyncs.wait()

    async def close(self) -> None:
        """Stop probing and sending, and close the client."""
        self._is_closed = True
        if self._probe is not None:
            await stop([self._probe])
        await self.owed.close()
        await self._fsyncs.close()
        await self._client.aclose()

    async def _run_once(self, call: ScriptCall) -> ScriptReply:
        if not self._answering.is_set():
            raise StoreLost
        return await self._batches(call)

    async def _run_batch(self, batch: Sequence[ScriptCall]) -> list[ScriptReply | Fault]:
        if self._probe is not None:
            raise StoreLost
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        allowance_s = self._patience.allowance_s(len(batch), began_s)
        self._start_timer(allowance_s / TIMER_TURNS, TIMER_TURNS)
        try:
            async with asyncio.timeout(self._timings.timeout_s + BATCH_CALL_S * len(batch)):
                replies = await self._evaluate(batch)
        except STORE_ERRORS as error:
            self._lose(error)
            raise StoreLost(type(error).__name__) from None
        finally:
            self._stop_timer()
        if any(call.operation not in READS for call in batch):
            self._patience.record(len(batch), loop.time() - began_s, loop.time())
        if self.owed.pending:
            self.owed.send_soon()
        return replies

    def _start_timer(self, turn_s: float, turns: int) -> None:
        """When the turns are over, the store is slow, and callers of the batch get StoreLost."""
        if turns:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(turn_s, self._start_timer, turn_s, turns - 1)
            return
        self._is_slow = True
        self._update_answering()
        self._batches.fail_all(StoreLost("slow"))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._is_slow = False
        self._update_answering()

    def _update_answering(self) -> None:
        if self._is_slow or self._probe is not None:
            self._answering.clear()
        else:
            self._answering.set()

    def _lose(self, error: Exception) -> None:
        if self._is_closed:
            return  # a batch that was in flight has lost its connection
        log.warning(
            "the ledger's store does not answer (%s): applying each rule's `store_loss` setting",
            type(error).__name__,
        )
        self._probe = asyncio.create_task(self._probe_until_answered(), name="probe the store")
        self._update_answering()

    async def _probe_until_answered(self) -> None:
        while True:
            with contextlib.suppress(*STORE_ERRORS, WrongSchema):
                async with asyncio.timeout(self._timings.timeout_s):
                    await self._warm_up()
                log.warning("the ledger's store answers again: its rules decide")
                self._probe = None
                self._update_answering()
                if self.owed.pending:
                    self.owed.send_soon()
                return
            await self._clock.sleep(self._timings.probe_pause_s)

    async def _warm_up(self) -> None:
        """Connect, load the script, and learn the pace from writes: a store that cannot write keeps
        no ledger, and one whose disk is slow answers reads at once.
        """
        loop = asyncio.get_running_loop()
        await self._evaluate([NO_COUNTERS])
        await ensure_schema(self._client, self._run_alone, self._state_kinds())
        for _ in range(MIN_BATCHES):
            began_s = loop.time()
            await self._client.set(PROBE_KEY, 1, px=1_000)
            self._patience.record(1, loop.time() - began_s, loop.time())
        self._on_connected(await self._fsyncs.learn())

    async def _run_alone(self, call: ScriptCall) -> None:
        (reply,) = await self._evaluate([call])
        if isinstance(reply, Fault):
            raise reply

    async def _evaluate(self, batch: Sequence[ScriptCall]) -> list[ScriptReply | Fault]:
        """Send a batch to the store, and load the script if the store does not have it.

        Raises the error of a store that cannot write; an error of the script itself is the answer
        of its call.
        """
        if not self._script_sha:
            self._script_sha = await self._client.script_load(SCRIPT)
        pipe = self._client.pipeline(transaction=False)
        now_us = str(self._now_us())
        for operation, prefix, arguments in batch:
            values = (operation, now_us, prefix, arguments, self._max_ledger_bytes)
            keys = (1, prefix + "holds")
            # Not `evalsha`, which redis-py refuses in pipelines to a cluster.
            pipe.execute_command("EVALSHA", self._script_sha, *keys, *values)
        replies = await pipe.execute(raise_on_error=False)
        if any(isinstance(reply, NoScriptError) for reply in replies):
            # The store was restarted or its scripts were flushed: nothing of the batch has run, and
            # what the store wrote last may be lost.
            self._script_sha = ""
            self.restarted_s = self._clock.monotonic()
            return await self._evaluate(batch)
        for reply in replies:
            if isinstance(reply, Exception) and is_store_failure(reply):
                raise reply
        return [_answer(*pair) for pair in zip(batch, replies, strict=True)]


def _answer(call: ScriptCall, reply: ScriptReply | Exception) -> ScriptReply | Fault:
    """The reply of a call, or the fault of one that the script could not run."""
    if not isinstance(reply, Exception):
        return reply
    log.error("operation %s on %s failed in the store: %s", call.operation, call.key_prefix, reply)
    return internal(f"the limiter's ledger could not run {call.operation}; see the limiter's log")
