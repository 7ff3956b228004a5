"""Two implementations of the ledger on random histories: the script in a real Redis and the
reference model in Python give the same answers. Plus what holds of the rules whatever happens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from penstock.limiter.counters import Counter, SpendPath, counters_of, organisation_prefix
from penstock.limiter.rules import LimitsSection, RuleSection
from penstock.limiter.script import UNBOUNDED, Renewal, Reservation
from penstock.limiter.store.connection import StoreTimings
from penstock.limiter.store.ledger_store import LedgerStore
from penstock.limiter.store.replay import replay
from penstock.service.clock import SystemClock
from penstock.service.store import embedded_store, open_store
from reference_ledger import ReferenceLedger

START_US = 1_800_000_000_000_000
TIMINGS = StoreTimings(timeout_s=5.0)
TTL_MS = 30_000
MAX_BYTES = 60_000
"""What a ledger keeps that is folded."""
ORGANISATION = organisation_prefix("acme")
RULES = LimitsSection(
    rules=(
        RuleSection(name="rpm", kind="rate", counts="requests", limit=7, window="minute", burst=3),
        RuleSection(
            name="tpm", kind="rate", level="user", counts="tokens", limit=900, window="minute"
        ),
        RuleSection(
            name="hour", kind="budget", counts="microusd", limit=5_000, window="hour", calendar=True
        ),
        RuleSection(
            name="roll", kind="budget", level="team", counts="tokens", limit=4_000, window="minute"
        ),
        RuleSection(
            name="soft",
            kind="budget",
            level="key",
            counts="tokens",
            limit=2_500,
            window="hour",
            calendar=True,
            holds="expected",
        ),
        RuleSection(
            name="seen",
            kind="budget",
            level="model",
            counts="requests",
            limit=5,
            window="minute",
            shadow=True,
        ),
    )
)
PATH = SpendPath("acme", "core", "ann", "key-1", (), "small")


def path_at(now_us: int, rules: LimitsSection = RULES) -> tuple[Counter, ...]:
    """The counters of the path with the windows of a time."""
    return counters_of(rules, PATH, now_us / 1e6)


@dataclass(frozen=True)
class Reserve:
    hold_id: str
    max_cost: list[int]
    min_cost: list[int]
    priority: int
    is_lease: bool

    def reservation(self) -> Reservation:
        """What is reserved; the expected cost lies halfway between minimum and maximum."""
        max_cost = [max(pair) for pair in zip(self.max_cost, self.min_cost, strict=True)]
        expected = [sum(pair) // 2 for pair in zip(max_cost, self.min_cost, strict=True)]
        return Reservation(
            max_cost,
            expected,
            self.min_cost,
            TTL_MS,
            self.priority,
            is_lease=self.is_lease,
            share=0.5,
        )


@dataclass(frozen=True)
class Extend:
    hold_id: str
    max_cost: list[int]


@dataclass(frozen=True)
class Settle:
    hold_id: str
    spent: list[int]
    with_path: bool


@dataclass(frozen=True)
class Renew:
    hold_id: str
    spent: list[int]
    wanted: list[int]
    priority: int

    def renewal(self) -> Renewal:
        return Renewal(self.spent, self.wanted, 0.5, self.priority)


@dataclass(frozen=True)
class Wait:
    milliseconds: int


@dataclass(frozen=True)
class SetLimit:
    counter_index: int
    limit: int


Step = Reserve | Extend | Settle | Renew | Wait | SetLimit

hold_ids = st.sampled_from(["a", "b", "c", "d", "e", "f"])
amounts = st.tuples(st.integers(0, 2), st.integers(0, 700), st.integers(0, 900)).map(list)
priorities = st.integers(1, 4)
steps: st.SearchStrategy[Step] = st.one_of(
    st.builds(Reserve, hold_ids, amounts, amounts, priorities, st.booleans()),
    st.builds(Extend, hold_ids, amounts),
    st.builds(Settle, hold_ids, amounts, st.booleans()),
    st.builds(Renew, hold_ids, amounts, amounts, priorities),
    st.builds(Wait, st.sampled_from([1, 900, 20_000, 61_000, 1_900_000])),
    st.builds(SetLimit, st.integers(0, 5), st.integers(1, 3_000)),
)


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture(scope="module")
def store_url(
    loop: asyncio.AbstractEventLoop, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    server = embedded_store(tmp_path_factory.mktemp("ledger"))
    yield loop.run_until_complete(server.__aenter__())
    loop.run_until_complete(server.__aexit__(None, None, None))


class Comparison:
    """The two implementations side by side; every answer is compared."""

    def __init__(self, store_url: str) -> None:
        self._client = open_store(store_url)
        self._now_us = START_US
        self._reference = ReferenceLedger()
        self._store = LedgerStore(
            self._client,
            SystemClock(),
            TIMINGS,
            now_us=lambda: self._now_us,
            max_ledger_bytes=1_500,
        )

    async def run(self, history: Sequence[Step]) -> None:
        """Take every step on both, and compare."""
        await self._client.flushall()
        for step in history:
            await self._take(step)
            await self._compare_usage()
            self._check_invariants()
        _, differing = await self._store.verify("acme")
        assert differing == []

    async def close(self) -> None:
        await self._store.close()

    async def _take(self, step: Step) -> None:
        store, reference, now_us = self._store, self._reference, self._now_us
        path = path_at(now_us)
        match step:
            case Reserve(hold_id):
                asked = step.reservation()
                ruling = await store.reserve("acme", hold_id, path, asked)
                assert ruling == reference.reserve(now_us, hold_id, path, asked)
            case Extend(hold_id, max_cost):
                ruling = await store.extend("acme", hold_id, max_cost)
                assert ruling == reference.extend(now_us, hold_id, max_cost)
            case Settle(hold_id, spent, with_path):
                known = path if with_path else ()
                settlement = await store.settle("acme", hold_id, spent, known)
                assert settlement == reference.settle(now_us, hold_id, spent, known)
            case Renew(hold_id):
                hold = reference.holds.get(hold_id)
                if hold is None or hold.is_lease:
                    ruling = await store.renew("acme", hold_id, step.renewal())
                    assert ruling == reference.renew(now_us, hold_id, step.renewal())
            case Wait(milliseconds):
                self._now_us += milliseconds * 1000
            case SetLimit(index, limit):
                counter = path[index]
                reference.counters.limits[counter.key] = limit
                await store.set_limit("acme", counter, limit)

    async def _compare_usage(self) -> None:
        path = path_at(self._now_us)
        usage = self._reference.usage(self._now_us, path)
        assert await self._store.usage("acme", path) == usage

    def _check_invariants(self) -> None:
        """What is true of the reference model after every step."""
        counters = self._reference.counters
        for key, state in replay(counters.bookings).items():
            budget = counters.budgets[key]
            if budget.window == state.window:
                assert (budget.committed, budget.held) == (state.committed, state.held)
        for key, budget in counters.budgets.items():
            assert budget.held == self._held_by_open_holds(key, budget.window)
            assert budget.held >= 0
            assert budget.committed >= 0
            if budget.spent_by_step:
                assert sum(budget.spent_by_step.values()) == budget.committed

    def _held_by_open_holds(self, key: str, window: int) -> int:
        """What the open holds hold of a counter in a window, added up one by one."""
        held = [
            hold.held(counter)
            for hold in self._reference.holds.values()
            if hold.is_open
            for counter, held_window in zip(hold.path, hold.windows, strict=True)
            if counter.key == key and held_window == window
        ]
        return sum(amount for amount in held if amount < UNBOUNDED)


NOTHING = [0, 0, 0]
SETTLED_AFTER_EXPIRY: list[Step] = [
    Reserve("a", NOTHING, NOTHING, 1, is_lease=False),
    Reserve("e", NOTHING, NOTHING, 1, is_lease=False),
    Extend("a", NOTHING),
    Reserve("a", NOTHING, NOTHING, 1, is_lease=False),
    Wait(61_000),
    Extend("a", NOTHING),
    Settle("e", NOTHING, with_path=False),
    Wait(61_000),
    Reserve("e", NOTHING, [1, 0, 0], 1, is_lease=False),
]
"""A hold that expires, is settled late, and whose id is used again once the settlement is no longer
remembered.
"""


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@example(SETTLED_AFTER_EXPIRY)
@given(st.lists(steps, min_size=5, max_size=40))
def test_script_and_reference_agree_on_random_histories(
    loop: asyncio.AbstractEventLoop, store_url: str, history: list[Step]
) -> None:
    async def compare() -> None:
        comparison = Comparison(store_url)
        try:
            await comparison.run(history)
        finally:
            await comparison.close()

    loop.run_until_complete(compare())


STRICT_RULES = LimitsSection(
    rules=(
        RuleSection(
            name="hour", kind="budget", counts="microusd", limit=3_000, window="hour", calendar=True
        ),
        RuleSection(
            name="roll", kind="budget", level="team", counts="tokens", limit=2_000, window="minute"
        ),
    )
)
strict_steps: st.SearchStrategy[Step] = st.one_of(
    st.builds(Reserve, hold_ids, amounts, amounts, priorities, st.booleans()),
    st.builds(Extend, hold_ids, amounts),
    st.builds(Settle, hold_ids, amounts, st.just(False)),
    st.builds(Renew, hold_ids, amounts, amounts, priorities),
    st.builds(Wait, st.sampled_from([900, 20_000, 61_000, 1_900_000])),
)


class ThriftyCallers:
    """Callers on the reference model who spend no more than they hold, and only from open holds."""

    def __init__(self) -> None:
        self.ledger = ReferenceLedger()
        self.now_us = START_US

    def take(self, step: Step) -> None:
        """Take one step; what is spent is what the step says, but at most what the hold holds."""
        match step:
            case Reserve(hold_id):
                path = path_at(self.now_us, STRICT_RULES)
                self.ledger.reserve(self.now_us, hold_id, path, step.reservation())
            case Wait(milliseconds):
                self.now_us += milliseconds * 1000
            case Extend(hold_id, max_cost) if self._is_open(hold_id):
                self.ledger.extend(self.now_us, hold_id, max_cost)
            case Settle(hold_id, spent) if self._is_open(hold_id):
                self.ledger.settle(self.now_us, hold_id, self._affordable(hold_id, spent))
            case Renew(hold_id, spent) if self._is_open(hold_id):
                if self.ledger.holds[hold_id].is_lease:
                    affordable = self._affordable(hold_id, spent)
                    renewal = replace(step.renewal(), spent=affordable)
                    self.ledger.renew(self.now_us, hold_id, renewal)

    def _is_open(self, hold_id: str) -> bool:
        hold = self.ledger.holds.get(hold_id)
        return hold is not None and hold.is_open and hold.expires_ms > self.now_us // 1000

    def _affordable(self, hold_id: str, spent: list[int]) -> list[int]:
        hold = self.ledger.holds[hold_id]
        return [
            before + min(part, held)
            for before, part, held in zip(hold.spent, spent, hold.max_cost, strict=True)
        ]


@settings(max_examples=100, deadline=None)
@given(st.lists(strict_steps, min_size=5, max_size=60))
def test_strict_rules_are_never_exceeded_by_callers_who_spend_what_they_hold(
    history: list[Step],
) -> None:
    callers = ThriftyCallers()
    for step in history:
        callers.take(step)
        path = path_at(callers.now_us, STRICT_RULES)
        for usage in callers.ledger.usage(callers.now_us, path):
            assert usage.committed >= 0
            assert usage.held >= 0
            assert usage.committed + usage.held <= usage.limit


async def test_a_folded_ledger_replays_to_the_state_and_a_meddled_counter_is_found(
    tmp_path: Path,
) -> None:
    async with embedded_store(tmp_path) as url:
        client, now_us = open_store(url), START_US
        store = LedgerStore(
            client, SystemClock(), TIMINGS, now_us=lambda: now_us, max_ledger_bytes=MAX_BYTES
        )
        for number in range(600):
            now_us += 7_000_000
            path = path_at(now_us)[2:4]
            reservation = Reservation([1, 5, 2], [1, 5, 2], [0, 1, 1], TTL_MS)
            await store.reserve("acme", f"h{number}", path, reservation)
            if number % 3:
                await store.settle("acme", f"h{number}", [1, 3, 1])
        entries, differing = await store.verify("acme")
        assert 0 < entries < 1_000
        assert int(await client.get(ORGANISATION + "ledger-bytes")) <= MAX_BYTES
        assert differing == []
        await client.hincrby(path[0].key, "c", 1)
        assert (await store.verify("acme"))[1] == [path[0].key]
        await store.close()
