"""An agent run at one router: one deadline, one spending limit, one cancel."""

from __future__ import annotations

import asyncio
import math

import pytest
from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.runs import runs as module
from penstock.router.runs.facts import Fact, Outbox
from penstock.router.runs.runs import Runs
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import Fault, deadline_exceeded
from penstock.rpc.reasons import Reason
from penstock.service.clock import SystemClock
from penstock.testkit.clock import FakeClock

CALL = Call(Principal("acme"), run_id="r")
RIVAL = Call(Principal("rival"), run_id="r")
NO_OPTIONS = pb.CallOptions()


def refused_because(runs: Runs, call: Call = CALL) -> Reason | None:
    """Why a further call of the run is refused; None where it is not."""
    try:
        runs.enter(NO_OPTIONS, call)
    except Fault as fault:
        return fault.reason
    return None


def test_the_first_call_sets_the_runs_deadline() -> None:
    clock = FakeClock(100.0)
    runs = Runs(clock)
    assert runs.enter(pb.CallOptions(run_deadline_ms=5_000), CALL).deadline_s == 105.0
    assert runs.enter(pb.CallOptions(run_deadline_ms=60_000), CALL).deadline_s == 105.0
    assert runs.enter(pb.CallOptions(run_deadline_ms=1), CALL).deadline_s == 105.0
    assert runs.enter(NO_OPTIONS, CALL).deadline_s == 105.0


def test_a_run_belongs_to_its_organisation() -> None:
    runs = Runs(FakeClock(100.0))
    runs.enter(pb.CallOptions(run_deadline_ms=5_000), CALL)
    assert runs.enter(NO_OPTIONS, RIVAL).deadline_s == math.inf


def test_a_calls_own_earlier_deadline_stands() -> None:
    runs = Runs(FakeClock(100.0))
    hurried = CALL._replace(deadline_s=101.0)
    assert runs.enter(pb.CallOptions(run_deadline_ms=5_000), hurried) is hurried


def test_a_call_outside_a_run_is_left_as_it_is() -> None:
    alone = Call(Principal("acme"))
    assert Runs(FakeClock()).enter(pb.CallOptions(run_deadline_ms=5_000), alone) is alone


def test_a_run_that_has_spent_its_money_is_over() -> None:
    runs = Runs(FakeClock())
    call = runs.enter(pb.CallOptions(run_max_cost_microusd=10), CALL)
    runs.spent(call, 7)
    runs.enter(pb.CallOptions(run_max_cost_microusd=1_000), CALL)
    runs.spent(call, 2)
    assert refused_because(runs) is None
    runs.spent(call, 1)
    with pytest.raises(Fault, match="the run r has spent its 10 micro-dollars") as refused:
        runs.enter(NO_OPTIONS, CALL)
    assert refused.value.reason is Reason.RUN_BUDGET_EXHAUSTED
    assert refused_because(runs, RIVAL) is None


def test_a_run_that_may_spend_nothing_is_over_before_it_begins() -> None:
    runs = Runs(FakeClock())
    with pytest.raises(Fault) as refused:
        runs.enter(pb.CallOptions(run_max_cost_microusd=0), CALL)
    assert refused.value.reason is Reason.RUN_BUDGET_EXHAUSTED


async def test_a_cancelled_run_ends_its_calls_and_takes_no_more() -> None:
    runs = Runs(FakeClock())
    begun = asyncio.Semaphore(0)

    async def work() -> None:
        with runs.part_of(CALL):
            begun.release()
            await asyncio.Event().wait()

    tasks = [asyncio.create_task(work()) for _ in range(3)]
    for _ in tasks:
        await begun.acquire()
    assert runs.cancel("rival", "r") == 0
    assert runs.cancel("acme", "r") == 3
    faults = await asyncio.gather(*tasks, return_exceptions=True)
    assert [fault.reason for fault in faults if isinstance(fault, Fault)] == (
        [Reason.RUN_CANCELLED] * 3
    )
    assert refused_because(runs) is Reason.RUN_CANCELLED
    assert runs.cancel("acme", "r") == 0


async def test_a_call_in_flight_ends_at_the_runs_deadline() -> None:
    runs = Runs(SystemClock())
    runs.enter(pb.CallOptions(run_deadline_ms=10), CALL)
    with pytest.raises(Fault, match="the time of run r is up") as ended, runs.part_of(CALL):
        await asyncio.wait_for(asyncio.Event().wait(), 10)
    assert ended.value.reason is Reason.RUN_DEADLINE


async def test_a_call_that_the_runs_deadline_ends_elsewhere_is_told_of_the_run() -> None:
    runs = Runs(FakeClock())
    call = runs.enter(pb.CallOptions(run_deadline_ms=10), CALL)
    with pytest.raises(Fault) as ended, runs.part_of(call):
        raise deadline_exceeded("deadline expired in the batcher queue")
    assert ended.value.reason is Reason.RUN_DEADLINE


async def test_a_call_whose_own_deadline_is_earlier_is_told_of_its_own() -> None:
    clock = FakeClock()
    runs, earlier = Runs(clock), CALL._replace(deadline_s=clock.monotonic() + 5)
    call = runs.enter(pb.CallOptions(run_deadline_ms=10_000), earlier)
    with pytest.raises(Fault) as ended, runs.part_of(call):
        raise deadline_exceeded("deadline expired in the batcher queue")
    assert ended.value.reason is Reason.DEADLINE_EXCEEDED


async def test_a_caller_that_leaves_is_not_told_of_the_run() -> None:
    runs = Runs(FakeClock())
    begun = asyncio.Event()

    async def work() -> None:
        with runs.part_of(CALL):
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert runs.cancel("acme", "r") == 0, "it is not counted any more"


async def test_a_cancel_leaves_other_organisations_calls_alone() -> None:
    runs = Runs(FakeClock())
    with runs.part_of(RIVAL):
        assert runs.cancel("acme", "r") == 0
        await asyncio.sleep(0)


def test_time_on_the_way_counts_against_the_deadline() -> None:
    runs = Runs(FakeClock(100.0))
    runs.learn(Fact("acme", "r", left_ms=5_000), age_s=2.0)
    assert runs.enter(NO_OPTIONS, CALL).deadline_s == 103.0


def test_of_two_routers_deadlines_the_earlier_holds_and_of_two_limits_the_first() -> None:
    runs = Runs(FakeClock(100.0))
    runs.learn(Fact("acme", "r", left_ms=5_000, max_microusd=10))
    runs.learn(Fact("acme", "r", left_ms=2_000, max_microusd=100))
    runs.learn(Fact("acme", "r", spent_microusd=10))
    with pytest.raises(Fault, match="10 micro-dollars"):
        runs.enter(NO_OPTIONS, CALL)
    runs = Runs(FakeClock(100.0))
    runs.learn(Fact("acme", "r", left_ms=5_000))
    runs.learn(Fact("acme", "r", left_ms=2_000))
    assert runs.enter(NO_OPTIONS, CALL).deadline_s == 102.0


def test_what_becomes_known_here_is_put_in_the_outbox_once() -> None:
    outbox = Outbox()
    runs = Runs(FakeClock(), outbox)
    limits = pb.CallOptions(run_deadline_ms=5_000, run_max_cost_microusd=10)
    for _ in range(2):
        runs.enter(limits, CALL)
    runs.spent(CALL, 3)
    runs.spent(CALL, 0)
    runs.spent(Call(Principal("acme")), 3)
    runs.cancel("acme", "r")
    assert outbox.first(10) == [
        Fact("acme", "r", left_ms=5_000, max_microusd=10),
        Fact("acme", "r", spent_microusd=3),
        Fact("acme", "r", cancelled=True),
    ]


def test_what_is_learned_from_others_is_not_told_again() -> None:
    outbox = Outbox()
    Runs(FakeClock(), outbox).learn(Fact("acme", "r", cancelled=True))
    assert len(outbox) == 0


def test_a_run_of_which_nothing_is_known_takes_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RUNS_KEPT", 2)
    outbox = Outbox()
    runs = Runs(FakeClock(), outbox)
    runs.learn(Fact("acme", "r", cancelled=True))
    for number in range(100):
        runs.enter(NO_OPTIONS, CALL._replace(run_id=str(number)))
    assert len(outbox) == 0
    assert refused_because(runs) is Reason.RUN_CANCELLED, "no other run has driven it out"


def test_the_longest_unused_run_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RUNS_KEPT", 2)
    runs = Runs(FakeClock())
    used, unused, new = (CALL._replace(run_id=name) for name in ("used", "unused", "new"))
    runs.learn(Fact("acme", "used", max_microusd=5))
    runs.learn(Fact("acme", "unused", cancelled=True))
    runs.enter(NO_OPTIONS, used)
    runs.learn(Fact("acme", "new", cancelled=True))
    assert refused_because(runs, unused) is None
    assert refused_because(runs, new) is Reason.RUN_CANCELLED
    runs.spent(used, 5)
    assert refused_because(runs, used) is Reason.RUN_BUDGET_EXHAUSTED
