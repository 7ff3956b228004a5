"""Agent runs over several routers on the real Redis: one budget, one deadline, one cancel, and
nothing lost by a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest
import redis.asyncio
from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.runs.run_stream import RunStream
from penstock.router.runs.runs import Fact, Runs
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import Fault
from penstock.service.clock import SystemClock
from penstock.service.store import embedded_store, open_store
from penstock.testkit.clock import FakeClock

CALL = Call(Principal("acme"), run_id="r\u00e9")
Make = Callable[[], tuple[Runs, RunStream]]


@pytest.fixture
async def make(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Make]:
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(embedded_store(tmp_path_factory.mktemp("redis")))
        made: list[tuple[RunStream, redis.asyncio.Redis]] = []

        def build() -> tuple[Runs, RunStream]:
            runs, store = Runs(SystemClock()), open_store(address)
            stream = RunStream(store, runs, SystemClock())
            stream.start()
            made.append((stream, store))
            return runs, stream

        yield build
        for stream, store in made:
            await stream.close()
            await store.aclose()


async def refused(runs: Runs) -> str:
    """The reason for which a router refuses the run, once it has heard."""
    async with asyncio.timeout(5):
        while True:
            try:
                runs.enter(pb.CallOptions(), CALL)
            except Fault as fault:
                return fault.reason
            await asyncio.sleep(0.01)


async def test_a_budget_is_one_over_all_routers_and_outlives_them(make: Make) -> None:
    (first, told), (second, _) = make(), make()
    first.enter(pb.CallOptions(run_max_cost_microusd=10), CALL)
    second.spent(CALL, 4)
    first.spent(CALL, 6)
    assert [await refused(first), await refused(second)] == ["RUN_BUDGET_EXHAUSTED"] * 2
    await told.close()
    third, _ = make()
    assert await refused(third) == "RUN_BUDGET_EXHAUSTED"


async def test_a_cancel_reaches_calls_at_every_router(make: Make) -> None:
    (first, _), (second, _) = make(), make()

    async def work_on() -> None:
        with second.part_of(CALL):
            await asyncio.Event().wait()

    task = asyncio.create_task(work_on())
    await asyncio.sleep(0)
    assert first.cancel("acme", CALL.run_id) == 0
    with pytest.raises(Fault) as caught:
        await asyncio.wait_for(task, 5)
    assert caught.value.reason == "RUN_CANCELLED"
    assert await refused(first) == "RUN_CANCELLED"


async def test_a_store_that_is_away_keeps_what_is_to_be_told(make: Make) -> None:
    (first, told), (second, _) = make(), make()
    send, told._send = told._send, _away  # type: ignore[method-assign]
    first.cancel("acme", CALL.run_id)
    await asyncio.sleep(0.05)
    told._send = send  # type: ignore[method-assign]
    assert await refused(second) == "RUN_CANCELLED"


async def _away() -> None:
    raise OSError("away")


async def test_the_time_on_the_way_counts_against_the_deadline() -> None:
    clock = FakeClock(100.0)
    runs = Runs(clock)
    runs.learn(Fact("acme", CALL.run_id, left_ms=5_000), age_s=2.0)
    assert runs.enter(pb.CallOptions(), CALL).deadline_s == 103.0


def test_runs_of_which_nothing_is_known_are_not_kept() -> None:
    told: list[Fact] = []
    runs = Runs(FakeClock(), told.append)
    for number in range(100):
        runs.enter(pb.CallOptions(), CALL._replace(run_id=str(number)))
    assert not runs._runs and not told
