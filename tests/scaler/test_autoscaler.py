"""The loop of the scaler: what several scalers share, what outlives a restart, how one pool's
failure is contained, and what a plan must not change.
"""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator

import pytest
from penstock.api.router.v1 import router_pb2
from penstock.api.scaler.v1 import scaler_pb2 as pb
from penstock.rpc.auth import internal
from penstock.rpc.call import Call
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.peers.stream import open_channel
from penstock.rpc.peers.unary import UnaryPeer
from penstock.scaler.actuate.actuator import Actuator, DryRun, FleetStatus
from penstock.scaler.forecast.features import Sample
from penstock.scaler.forecast.forecaster import Forecaster
from penstock.scaler.pools.autoscaler import Autoscaler, NoticeOutcome
from penstock.scaler.pools.demand_intake import DemandIntake
from penstock.scaler.pools.demand_source import REGISTRY, DemandSource
from penstock.scaler.pools.planner import PoolPlanner
from penstock.scaler.pools.store import ScalerStore
from penstock.service.store import open_store
from penstock.testkit.clock import FakeClock
from penstock.testkit.server import TOKEN, serving

from .conftest import AUTH, INTERVAL_S, START_S, Scalers, feed, make_pool
from .test_keda import REF


class SlowFleet(DryRun):
    """Instances that serve some observations after they were asked for."""

    def __init__(self, first: int, delay: int = 1) -> None:
        super().__init__(first)
        self.wanted = first
        self.observations = 0
        self._requested = [first] * delay

    async def status(self) -> FleetStatus:
        self.observations += 1
        self._requested.append(self.wanted)
        return FleetStatus(self.wanted, min(self.wanted, self._requested.pop(0)))

    async def scale(self, wanted: int) -> None:
        self.wanted = wanted


def demand_row(step: int, work: float) -> pb.DemandSample:
    start_ms = round(START_S * 1e3) + step * 10_000
    return pb.DemandSample(start_unix_ms=start_ms, interval_ms=10_000, work=work)


async def test_samples_reported_to_one_scaler_reach_all(scalers: Scalers) -> None:
    leader, other = await scalers.make("a"), await scalers.make("b")
    await leader.autoscaler.tick()
    for step in range(6):
        await scalers.clock.advance(INTERVAL_S)
        request = pb.ReportDemandRequest(pool="m", samples=[demand_row(step, 500.0)])
        reported_to = other if step % 2 else leader
        await reported_to.api.ReportDemand(request, metadata=AUTH)
        for scaler in (leader, other):
            await scaler.autoscaler.tick()
    for scaler in (leader, other):
        assert [sample.work for sample in scaler.pool.planner.samples] == [500.0] * 6
        assert scaler.pool.wanted == 5


async def test_measured_lead_times_outlive_a_restart(scalers: Scalers) -> None:
    scaler = await scalers.make(actuator=SlowFleet(1, delay=4))
    await feed(scaler, [100.0] * 5 + [500.0] * 10)
    planner = scaler.pool.planner
    assert list(planner.lead_times.recent_s) == [50.0] * 4
    assert planner.ahead == 5
    restarted = await scalers.make("b")
    assert restarted.pool.planner.calibration == planner.calibration
    assert restarted.pool.planner.lead_times.horizon_s == 50.0


async def test_a_fleet_that_nobody_observes_gives_no_lead_times(scalers: Scalers) -> None:
    scaler = await scalers.make()
    await feed(scaler, [100.0] * 3 + [700.0] * 6)
    assert scaler.pool.wanted == 7
    assert not scaler.pool.planner.lead_times.recent_s


async def test_a_dry_run_decides_and_starts_and_stops_nothing(scalers: Scalers) -> None:
    class Untouchable(DryRun):
        async def status(self) -> FleetStatus:
            return FleetStatus(2, 2)

        async def scale(self, wanted: int) -> None:
            raise AssertionError(wanted)

        async def replace(self, instance: str, remaining_s: float) -> bool:
            raise AssertionError(instance)

    drained: list[str] = []

    async def stop_requests(instance: str, reason: str) -> int | None:
        drained.append(instance)
        return 0

    scaler = await scalers.make(actuator=Untouchable(2), dry_run=True, stop_requests=stop_requests)
    await feed(scaler, [700.0] * 6)
    decision = scaler.pool.decisions[0]
    assert (decision.current, decision.wanted, decision.floor) == (2, 6, 7)
    assert "rate" in decision.reason
    outcome = await scaler.autoscaler.handle_notice("i-1")
    assert outcome == NoticeOutcome(replaced=False, draining=True)
    assert drained == ["i-1"]


async def test_a_schedule_holds_in_its_hours_and_is_given_as_the_reason(scalers: Scalers) -> None:
    began = datetime.datetime.fromtimestamp(START_S, datetime.UTC)
    hours = {
        "begins": (began + datetime.timedelta(minutes=1)).time(),
        "ends": (began + datetime.timedelta(minutes=3)).time(),
    }
    scaler = await scalers.make(schedules=[{"min_instances": 3, **hours}])
    seen = []
    for _ in range(5):
        await feed(scaler, [10.0] * 6)
        seen.append((scaler.pool.wanted, scaler.pool.decisions[0].reason == "schedule"))
    # After the hours, one instance less at each decision that removes any.
    assert seen == [(3, True), (3, True), (2, False), (1, False), (1, False)]


async def test_stored_rows_that_cannot_be_read_are_left_out(scalers: Scalers) -> None:
    first = await scalers.make()
    await feed(first, [400.0] * 6)
    client = open_store(scalers.url, retries=0)
    for row in ("not json", "[1]", "{}", "null", '[1, "x", 2]'):
        await client.rpush("penstock:scaler:m:samples", row)
        await client.lpush("penstock:scaler:m:decisions", row)
        await client.set("penstock:scaler:m:learnt", row)
        restarted = await scalers.make(f"after {row}")
        assert restarted.pool.wanted == 4
        assert len(restarted.pool.planner.samples) == 6
    await client.aclose()


async def test_a_plan_observes_nothing_and_changes_nothing(scalers: Scalers) -> None:
    actuator = SlowFleet(1)
    scaler = await scalers.make(actuator=actuator)
    await feed(scaler, [300.0] * 6)
    observations, state = actuator.observations, scaler.pool.planner.state
    plan = (await scaler.api.GetPlan(pb.GetPlanRequest(pool="m"), metadata=AUTH)).decision
    assert (plan.wanted, plan.on_demand) == (3, 3)
    assert actuator.observations == observations
    assert scaler.pool.planner.state == state


async def test_a_pool_that_fails_does_not_hold_up_the_others(clock: FakeClock) -> None:
    class Broken(DryRun):
        async def status(self) -> FleetStatus:
            raise RuntimeError("this pool has failed")

    pools = [make_pool(Broken(1), name="bad"), make_pool(DryRun(1), name="good")]
    autoscaler = Autoscaler(pools, ScalerStore(None, "a"), clock)
    for pool in pools:
        await autoscaler.report(pool.name, [Sample(START_S - INTERVAL_S, 500.0)])
    await autoscaler.tick()
    assert [pool.wanted for pool in pools] == [1, 5]
    await autoscaler.wait_for_fits()


async def test_without_any_fit_the_reactive_rules_decide(
    scalers: Scalers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: PoolPlanner) -> object:
        raise MemoryError("no memory to fit")

    monkeypatch.setattr(PoolPlanner, "rebuild", fail)
    scaler = await scalers.make()
    await feed(scaler, [500.0] * 6)
    assert scaler.pool.wanted == 5
    assert scaler.pool.planner.forecasts.reactive_reason
    assert not scaler.pool.planner.forecasts.latest
    assert "fitting m failed" in caplog.text


async def test_when_a_fit_fails_the_experts_fitted_before_go_on(
    scalers: Scalers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Forecaster) -> object:
        raise MemoryError("no memory to fit")

    scaler = await scalers.make()
    await feed(scaler, [500.0] * 46)
    assert scaler.pool.planner.forecasts.latest
    monkeypatch.setattr(Forecaster, "train", fail)
    await feed(scaler, [500.0] * 60)
    assert scaler.pool.planner.forecasts.latest
    assert scaler.pool.wanted >= 5


async def test_an_instance_with_a_notice_that_no_pool_runs_is_drained_at_the_router(
    scalers: Scalers,
) -> None:
    stopped: list[tuple[str, str]] = []

    async def stop_requests(instance: str, reason: str) -> int | None:
        stopped.append((instance, reason))
        return 3 if instance == "pod-1" else None

    scaler = await scalers.make(stop_requests=stop_requests)
    for instance, draining in (("pod-1", True), ("stranger", False)):
        request = pb.NotifyTerminationRequest(instance_id=instance, source="test")
        answer = await scaler.api.NotifyTermination(request, metadata=AUTH)
        assert (answer.replaced, answer.draining) == (False, draining)
    assert stopped == [("pod-1", "spot_notice"), ("stranger", "spot_notice")]


class ReplacingFleet(DryRun):
    """Replaces every instance, and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(1)
        self.replaced: list[tuple[str, float]] = []

    async def replace(self, instance: str, remaining_s: float) -> bool:
        self.replaced.append((instance, remaining_s))
        return True


async def test_a_notice_to_a_follower_is_acted_on_once_by_the_leader(scalers: Scalers) -> None:
    acting, idle = ReplacingFleet(), ReplacingFleet()
    leader, other = await scalers.make("a", acting), await scalers.make("b", idle)
    await leader.autoscaler.tick()
    await other.autoscaler.tick()
    gone_ms = round(START_S * 1e3) + 120_000
    first = pb.NotifyTerminationRequest(instance_id="i-1", at_unix_ms=gone_ms)
    answer = await other.api.NotifyTermination(first, metadata=AUTH)
    assert (answer.replaced, answer.draining) == (False, True)
    await scalers.clock.advance(5.0)
    for _ in range(2):
        await leader.autoscaler.tick()
    assert (acting.replaced, idle.replaced) == ([("i-1", 115.0)], [])
    second = pb.NotifyTerminationRequest(instance_id="i-2", at_unix_ms=gone_ms)
    assert (await leader.api.NotifyTermination(second, metadata=AUTH)).replaced
    assert [instance for instance, _ in acting.replaced] == ["i-1", "i-2"]


async def test_the_metric_of_a_pool_named_like_a_path_has_a_name_that_kubernetes_accepts(
    scalers: Scalers,
) -> None:
    name = "Qwen/Qwen2.5:7b"
    scaler = await scalers.make(name=name)
    ref = type(REF)(name="so", scalerMetadata={"pool": name})
    spec = (await scaler.keda.GetMetricSpec(ref)).metricSpecs[0]
    assert spec.metricName == "penstock-qwen-qwen2-5-7b"


class FakeRegistry:
    """The registry of a router: instances that serve and calls that wait, by model."""

    def __init__(self) -> None:
        self.fleets: dict[str, tuple[int, int]] = {}
        self.scaled: list[str] = []

    async def ListFleets(
        self, request: router_pb2.ListFleetsRequest, call: Call
    ) -> router_pb2.ListFleetsResponse:
        self.scaled = list(request.scaled)
        rows = [
            router_pb2.FleetState(model=name, serving=serving, waiting=waiting)
            for name, (serving, waiting) in self.fleets.items()
        ]
        return router_pb2.ListFleetsResponse(fleets=rows)

    async def Drain(self, request: router_pb2.DrainRequest, call: Call) -> router_pb2.DrainResponse:
        return router_pb2.DrainResponse()

    async def Register(self, request: object, call: Call) -> router_pb2.RegisterResponse:
        return router_pb2.RegisterResponse()

    async def Heartbeat(self, request: object, call: Call) -> router_pb2.HeartbeatResponse:
        return router_pb2.HeartbeatResponse()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START_S)


@pytest.fixture
def registry() -> FakeRegistry:
    return FakeRegistry()


@pytest.fixture
async def demand(registry: FakeRegistry, clock: FakeClock) -> AsyncIterator[DemandIntake]:
    """Demand from the registry alone, over real gRPC."""
    async with serving([Endpoint(REGISTRY, registry, internal(TOKEN))]) as server:
        peer = UnaryPeer(open_channel(server.address), REGISTRY, token=TOKEN, clock=clock)
        yield DemandIntake(DemandSource(None, None, peer, clock), clock)
        await peer.close()


def autoscaler_of(
    actuator: Actuator, clock: FakeClock, demand: DemandIntake, **changes: float
) -> Autoscaler:
    return Autoscaler([make_pool(actuator, **changes)], ScalerStore(None, "a"), clock, demand)


async def test_a_call_that_waits_at_the_router_ends_zero_at_the_next_tick(
    registry: FakeRegistry, clock: FakeClock, demand: DemandIntake
) -> None:
    actuator = SlowFleet(0)
    autoscaler = autoscaler_of(actuator, clock, demand, capacity=0.0)
    await autoscaler.tick()
    assert registry.scaled == ["m"]
    assert autoscaler.pools["m"].decisions[0].wanted == 0
    registry.fleets = {"m": (0, 2)}
    await autoscaler.tick()
    decision = autoscaler.pools["m"].decisions[0]
    assert (decision.wanted, decision.reason) == (1, "backlog")
    assert actuator.wanted == 1


async def test_lead_times_under_keda_are_measured_from_what_serves_at_the_router(
    registry: FakeRegistry, clock: FakeClock, demand: DemandIntake
) -> None:
    autoscaler = autoscaler_of(DryRun(1), clock, demand)
    registry.fleets = {"m": (1, 0)}
    for step in range(8):
        sample = Sample(START_S + INTERVAL_S * (step - 1), 300.0)
        await autoscaler.report("m", [sample])
        await autoscaler.tick()
        await clock.advance(INTERVAL_S)
        if step == 4:
            registry.fleets = {"m": (3, 0)}
    assert list(autoscaler.pools["m"].planner.lead_times.recent_s) == [50.0, 50.0]
    await autoscaler.wait_for_fits()
