"""Agent runs over several routers on a real store: one budget, one deadline, one cancel, and
nothing lost by a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.runs.facts import Outbox
from penstock.router.runs.run_stream import RunStream
from penstock.router.runs.runs import Runs
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import Fault
from penstock.rpc.reasons import Reason
from penstock.service.clock import SystemClock
from penstock.service.store import embedded_store, open_store
from penstock.testkit.eventually import eventually

CALL = Call(Principal("acme"), run_id="r\u00e9")
NO_OPTIONS = pb.CallOptions()


class InterruptibleStore:
    """A client of the real store that can be cut off for writing."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self.away = False
        self.refused = asyncio.Event()

    def pipeline(self, transaction: bool = True) -> Any:
        """See redis.asyncio.Redis."""
        if self.away:
            self.refused.set()
            raise OSError("away")
        return self._client.pipeline(transaction=transaction)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


@dataclass
class RouterRuns:
    """The runs of one router, its stream and its store."""

    runs: Runs
    outbox: Outbox
    stream: RunStream
    store: InterruptibleStore

    async def refusal(self) -> Reason:
        """Why this router refuses the run, once it has heard."""

        def refused_because() -> Reason | None:
            try:
                self.runs.enter(NO_OPTIONS, CALL)
            except Fault as fault:
                return fault.reason
            return None

        found = await eventually(lambda: refused_because())
        assert found is not None
        return found


StartRuns = Callable[[], Awaitable[RouterRuns]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[StartRuns]:
    """Starts the runs of one router more, on the one store."""
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(embedded_store(tmp_path / "store"))

        async def start_one() -> RouterRuns:
            client = await stack.enter_async_context(open_store(address))
            store, outbox, clock = InterruptibleStore(client), Outbox(), SystemClock()
            runs = Runs(clock, outbox)
            stream = RunStream(store, runs, outbox, clock)  # type: ignore[arg-type]
            stream.start()
            stack.push_async_callback(stream.close)
            return RouterRuns(runs, outbox, stream, store)

        yield start_one


async def test_a_budget_is_one_over_all_routers_and_outlives_them(start: StartRuns) -> None:
    first, second = await start(), await start()
    first.runs.enter(pb.CallOptions(run_max_cost_microusd=10), CALL)
    second.runs.spent(CALL, 4)
    first.runs.spent(CALL, 6)
    assert await first.refusal() is Reason.RUN_BUDGET_EXHAUSTED
    assert await second.refusal() is Reason.RUN_BUDGET_EXHAUSTED
    await first.stream.close()
    third = await start()
    assert await third.refusal() is Reason.RUN_BUDGET_EXHAUSTED


async def test_a_deadline_is_one_over_all_routers(start: StartRuns) -> None:
    first, second = await start(), await start()
    here = first.runs.enter(pb.CallOptions(run_deadline_ms=60_000), CALL).deadline_s

    def heard() -> None:
        there = second.runs.enter(NO_OPTIONS, CALL).deadline_s
        assert here - 5.0 < there < here + 5.0

    await eventually(heard)


async def test_a_cancel_reaches_calls_at_every_router(start: StartRuns) -> None:
    first, second = await start(), await start()
    begun = asyncio.Event()

    async def work() -> None:
        with second.runs.part_of(CALL):
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await begun.wait()
    assert first.runs.cancel("acme", CALL.run_id) == 0, "no call of it is in flight at this router"
    with pytest.raises(Fault) as cancelled:
        await asyncio.wait_for(task, 5)
    assert cancelled.value.reason is Reason.RUN_CANCELLED
    assert await first.refusal() is Reason.RUN_CANCELLED


async def test_facts_wait_while_the_store_is_away(start: StartRuns) -> None:
    first, second = await start(), await start()
    first.store.away = True
    first.runs.cancel("acme", CALL.run_id)
    await asyncio.wait_for(first.store.refused.wait(), 5)
    assert len(first.outbox) == 1
    first.store.away = False
    assert await second.refusal() is Reason.RUN_CANCELLED
    await eventually(lambda: len(first.outbox) == 0)


async def test_closing_sends_what_waits_and_gives_up_where_the_store_is_away(
    start: StartRuns,
) -> None:
    first, second = await start(), await start()
    first.store.away = True
    first.runs.cancel("acme", CALL.run_id)
    await asyncio.wait_for(first.store.refused.wait(), 5)
    first.store.away = False
    await first.stream.close()
    assert await second.refusal() is Reason.RUN_CANCELLED
    third = await start()
    third.store.away = True
    third.runs.spent(CALL, 1)
    await third.stream.close()
    assert len(third.outbox) == 0
