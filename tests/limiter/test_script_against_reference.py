"""One table, two implementations: the script in a real Redis and the Python policy give the same
verdicts on random histories.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path as Folder

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from penstock.limiter.decisions import UNBOUNDED, Reservation, Ruling
from penstock.limiter.ledger_store import LedgerStore
from penstock.limiter.replay import replay
from penstock.limiter.rules import Counter, LimitsSection, RuleSection, SpendPath, counters
from penstock.service.clock import SystemClock
from penstock.service.store import embedded_store, open_store
from reference_ledger import ReferenceLedger

START_S = 1_800_000_000.0
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

vectors = st.tuples(st.integers(0, 2), st.integers(0, 700), st.integers(0, 900)).map(list)
names = st.sampled_from(["a", "b", "c", "d", "e", "f"])
operations = st.one_of(
    st.tuples(st.just("reserve"), names, vectors, vectors, st.integers(1, 4), st.booleans()),
    st.tuples(st.just("extend"), names, vectors),
    st.tuples(st.just("settle"), names, vectors, st.booleans()),
    st.tuples(st.just("renew"), names, vectors, vectors, st.integers(1, 4)),
    st.tuples(st.just("wait"), st.sampled_from([1, 900, 20_000, 61_000, 1_900_000])),
    st.tuples(st.just("limit"), st.integers(0, 6), st.integers(1, 3_000)),
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
    folder: Folder = tmp_path_factory.mktemp("books")
    server = embedded_store(folder, "cache")
    yield loop.run_until_complete(server.__aenter__())
    loop.run_until_complete(server.__aexit__(None, None, None))


class Both:
    """The two implementations side by side; every answer is compared."""

    def __init__(self, store: LedgerStore, moment: list[int]) -> None:
        self.books, self.store, self.moment = ReferenceLedger(), store, moment

    async def do(self, operation: tuple[object, ...]) -> None:
        kind, *rest = operation
        path = counters(RULES, PATH, self.moment[0] / 1e6)
        await getattr(self, kind)(path, *rest)  # type: ignore[call-overload]
        await self.agree(path)

    async def reserve(self, path, name, most, least, priority, lease) -> None:  # type: ignore[no-untyped-def]
        most = [max(pair) for pair in zip(most, least, strict=True)]
        usual = [(a + b) // 2 for a, b in zip(most, least, strict=True)]
        ask = Reservation(most, usual, least, 30_000, priority, lease=lease, share=0.5)
        here = self.books.reserve(self.moment[0], name, path, ask)
        there = await self.store.reserve("acme", name, path, ask)
        assert there == here, ask

    async def extend(self, path, name, most) -> None:  # type: ignore[no-untyped-def]
        there = await self.store.extend("acme", name, most)
        assert there == self.books.extend(self.moment[0], name, most)

    async def settle(self, path, name, spent, passed_without) -> None:  # type: ignore[no-untyped-def]
        rows = path if passed_without else ()
        there = await self.store.settle("acme", name, spent, rows)
        assert there == self.books.settle(self.moment[0], name, spent, rows)

    async def renew(self, path, name, spent, wanted, priority) -> None:  # type: ignore[no-untyped-def]
        held = self.books.holds.get(name)
        if held is not None and held.usual is not held.most:
            return  # a call's hold, not a lease
        ask = Reservation([0] * 3, [0] * 3, [0] * 3, 30_000, priority, share=0.5)
        there = await self.store.renew("acme", name, spent, wanted, ask)
        here: Ruling = self.books.renew(self.moment[0], name, spent, wanted, ask)
        assert there == here

    async def wait(self, path, milliseconds) -> None:  # type: ignore[no-untyped-def]
        self.moment[0] += milliseconds * 1000

    async def limit(self, path, index, limit) -> None:  # type: ignore[no-untyped-def]
        counter = path[index % len(path)]
        self.books.limits[counter.key] = limit
        await self.store.set_limit("acme", counter, limit)

    async def agree(self, path) -> None:  # type: ignore[no-untyped-def]
        path = counters(RULES, PATH, self.moment[0] / 1e6)
        here = self.books.usage(self.moment[0], path)
        assert await self.store.usage("acme", path) == here
        for key, (window, committed, held) in replay(self.books.ledger).items():
            account = self.books.accounts[key]
            if account.window == window:
                assert (account.committed, account.held) == (committed, held)
        for counter in path:
            account = self.books.accounts.get(counter.key)
            assert account is None or account.held == self.open_on(counter, account.window)
        for account in self.books.accounts.values():
            assert account.held >= 0
            assert account.committed >= 0
            if account.buckets:
                assert sum(account.buckets.values()) == account.committed

    def open_on(self, counter: Counter, window: int) -> int:
        """What the open holds hold of a counter in a window, added up one by one."""
        rows = [
            (row, start, hold)
            for hold in self.books.holds.values()
            if hold.state == "open"
            for row, start in zip(hold.path, hold.starts, strict=True)
        ]
        held = [
            hold.held(row)
            for row, start, hold in rows
            if row.key == counter.key and start == window
        ]
        return sum(part for part in held if part < UNBOUNDED)


STRICT = LimitsSection(
    rules=(
        RuleSection(
            name="hour", kind="budget", counts="microusd", limit=3_000, window="hour", calendar=True
        ),
        RuleSection(
            name="roll", kind="budget", level="team", counts="tokens", limit=2_000, window="minute"
        ),
    )
)
kept = st.one_of(
    st.tuples(st.sampled_from(["reserve", "lease"]), names, vectors, st.integers(1, 4)),
    st.tuples(st.sampled_from(["extend", "settle", "renew"]), names, vectors, st.integers(1, 4)),
    st.tuples(
        st.just("wait"),
        names,
        st.sampled_from([[900, 0, 0], [20_000, 0, 0], [61_000, 0, 0], [1_900_000, 0, 0]]),
        st.just(1),
    ),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(kept, min_size=5, max_size=60))
def test_strict_rules_are_never_passed_whatever_the_history(
    history: list[tuple[str, str, list[int], int]],
) -> None:
    """Committed + held ≤ limit, and with what is available exactly the limit, as long as callers
    spend no more than they hold.
    """
    books, now = ReferenceLedger(), int(START_S * 1e6)
    for kind, name, vector, priority in history:
        path, hold = counters(STRICT, PATH, now / 1e6), books.holds.get(name)
        spent = [min(pair) for pair in zip(vector, hold.most, strict=True)] if hold else vector
        ask = Reservation(
            vector, vector, [part // 2 for part in vector], 30_000, priority, share=0.5
        )
        if kind == "wait":
            now += vector[0] * 1000
        elif kind in ("reserve", "lease"):
            books.reserve(now, name, path, replace(ask, lease=kind == "lease"))
        elif hold is None or hold.state != "open" or hold.expires_ms <= now // 1000:
            continue
        elif kind == "extend":
            books.extend(now, name, vector)
        elif kind == "settle":
            books.settle(
                now, name, [total + part for total, part in zip(hold.spent, spent, strict=True)]
            )
        elif hold.usual is hold.most:
            books.renew(
                now,
                name,
                [total + part for total, part in zip(hold.spent, spent, strict=True)],
                vector,
                ask,
            )
        for row in books.usage(now, counters(STRICT, PATH, now / 1e6)):
            assert row.committed >= 0
            assert row.held >= 0
            assert row.committed + row.held <= row.limit


NOTHING = [0, 0, 0]
SETTLED_AFTER_EXPIRY: list[tuple[object, ...]] = [
    ("reserve", "a", NOTHING, NOTHING, 1, False),
    ("reserve", "e", NOTHING, NOTHING, 1, False),
    ("extend", "a", NOTHING),
    ("reserve", "a", NOTHING, NOTHING, 1, False),
    ("wait", 61_000),
    ("extend", "a", NOTHING),
    ("settle", "e", NOTHING, False),
    ("wait", 61_000),
    ("reserve", "e", NOTHING, [1, 0, 0], 1, False),
]
"""A hold that expires, is settled late, and whose name is used again once the settlement is no
longer remembered.
"""


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@example(SETTLED_AFTER_EXPIRY)
@given(st.lists(operations, min_size=5, max_size=40))
def test_script_and_policy_agree_on_random_histories(
    loop: asyncio.AbstractEventLoop, store_url: str, history: list[tuple[object, ...]]
) -> None:
    async def run() -> None:
        client = open_store(store_url)
        await client.flushall()
        moment = [int(START_S * 1e6)]
        both = Both(
            LedgerStore(
                client, SystemClock(), timeout_s=5.0, now_us=lambda: moment[0], ledger_kept=5
            ),
            moment,
        )
        try:
            for operation in history:
                await both.do(operation)
            entries, differing = await both.store.verify("acme")
            assert differing == [], entries
        finally:
            await client.aclose()

    loop.run_until_complete(run())


async def test_a_ledger_that_has_been_folded_still_replays_to_the_state(tmp_path: Folder) -> None:
    async with embedded_store(tmp_path, "cache") as url:
        client, moment = open_store(url), [int(START_S * 1e6)]
        store = LedgerStore(
            client, SystemClock(), timeout_s=5.0, now_us=lambda: moment[0], ledger_kept=300
        )
        path = counters(RULES, PATH, START_S)[2:4]
        for number in range(600):
            moment[0] += 7_000_000
            path = counters(RULES, PATH, moment[0] / 1e6)[2:4]
            ask = Reservation([1, 5, 2], [1, 5, 2], [0, 1, 1], 30_000)
            await store.reserve("acme", f"h{number}", path, ask)
            if number % 3:
                await store.settle("acme", f"h{number}", [1, 3, 1])
        entries, differing = await store.verify("acme")
        assert 300 <= entries <= 501
        assert differing == []
        await client.hincrby(path[0].key, "c", 1)  # somebody meddles
        assert (await store.verify("acme"))[1] == [path[0].key]
        await store.close()
