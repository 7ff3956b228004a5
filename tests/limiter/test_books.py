"""One table, two implementations: the script in a real Redis and the Python policy give the same verdicts on random histories."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path as Folder

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from penstock.core.clock import SystemClock
from penstock.core.redis import embedded_redis, open_redis
from penstock.limiter.adapters import Store
from penstock.limiter.policy import Books, Question, Reply, replay
from penstock.limiter.rules import LimitsSection, Path, RuleSection, counters

START_S = 1_800_000_000.0
RULES = LimitsSection(
    rules=(
        RuleSection(name="rpm", kind="rate", counts="requests", limit=7, window="minute", burst=3),
        RuleSection(name="tpm", kind="rate", level="user", counts="tokens", limit=900, window="minute"),
        RuleSection(name="hour", kind="budget", counts="microusd", limit=5_000, window="hour", calendar=True),
        RuleSection(name="roll", kind="budget", level="team", counts="tokens", limit=4_000, window="minute"),
        RuleSection(name="soft", kind="budget", level="key", counts="tokens", limit=2_500, window="hour", calendar=True, holds="expected"),
        RuleSection(name="seen", kind="budget", level="model", counts="requests", limit=5, window="minute", shadow=True),
    )
)  # fmt: skip
PATH = Path("acme", "core", "ann", "key-1", (), "small")

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
def store_url(loop: asyncio.AbstractEventLoop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Folder = tmp_path_factory.mktemp("books")
    server = embedded_redis(folder, "cache")
    yield loop.run_until_complete(server.__aenter__())
    loop.run_until_complete(server.__aexit__(None, None, None))


class Both:
    """The two implementations side by side; every answer is compared."""

    def __init__(self, store: Store, moment: list[int]) -> None:
        self.books, self.store, self.moment = Books(), store, moment

    async def do(self, operation: tuple[object, ...]) -> None:
        kind, *rest = operation
        path = counters(RULES, PATH, self.moment[0] / 1e6)
        await getattr(self, kind)(path, *rest)  # type: ignore[call-overload]
        await self.agree(path)

    async def reserve(self, path, name, most, least, priority, lease) -> None:  # type: ignore[no-untyped-def]
        most = [max(pair) for pair in zip(most, least, strict=True)]
        usual = [(a + b) // 2 for a, b in zip(most, least, strict=True)]
        ask = Question(most, usual, least, 30_000, priority, lease=lease, share=0.5)
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
        ask = Question([0] * 3, [0] * 3, [0] * 3, 30_000, priority, share=0.5)
        there = await self.store.renew("acme", name, spent, wanted, ask)
        here: Reply = self.books.renew(self.moment[0], name, spent, wanted, ask)
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
        for account in self.books.accounts.values():
            assert account.held >= 0
            assert account.committed >= 0
            if account.buckets:
                assert sum(account.buckets.values()) == account.committed


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(operations, min_size=5, max_size=40))
def test_script_and_policy_agree_on_random_histories(
    loop: asyncio.AbstractEventLoop, store_url: str, history: list[tuple[object, ...]]
) -> None:
    async def run() -> None:
        client = open_redis(store_url)
        await client.flushall()
        moment = [int(START_S * 1e6)]
        both = Both(Store(client, SystemClock(), timeout_s=5.0, now_us=lambda: moment[0]), moment)
        try:
            for operation in history:
                await both.do(operation)
            entries, differing = await both.store.verify("acme")
            assert differing == [], entries
        finally:
            await client.aclose()

    loop.run_until_complete(run())
