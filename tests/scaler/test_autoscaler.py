"""The loop: what several scalers share, what restarts keep, what one pool's fault must not do, and
what only looks may not change.
"""

from __future__ import annotations

import datetime

import pytest
from penstock.api.router.v1 import router_pb2
from penstock.api.scaler.v1 import scaler_pb2 as pb
from penstock.rpc.auth import internal
from penstock.rpc.call import Call
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.peers.stream import open_channel
from penstock.rpc.peers.unary import UnaryPeer
from penstock.scaler.actuate.actuator import DryRun, FleetStatus
from penstock.scaler.forecast.forecaster import Forecaster
from penstock.scaler.pools.autoscaler import Autoscaler
from penstock.scaler.pools.planner import PoolPlanner
from penstock.scaler.pools.store import REGISTRY, DemandSource, ScalerStore
from penstock.scaler.samples import Sample
from penstock.scaler.settings import PoolConfig
from penstock.service.store import open_store
from penstock.testkit.clock import FakeClock
from penstock.testkit.server import TOKEN, serving

from .conftest import AUTH, POOL, START_S, Scalers
from .test_keda import REF, feed


class Seen(DryRun):
    """Instances that serve `late` looks after they were asked for."""

    def __init__(self, first: int, late: int = 1) -> None:
        super().__init__(first)
        self._asked = [first] * late
        self.looks = 0

    async def fleet(self) -> FleetStatus:
        self.looks += 1
        self._asked.append(self._wanted)
        return FleetStatus(self._wanted, min(self._wanted, self._asked.pop(0)))


async def test_what_one_scaler_is_told_all_know(scalers: Scalers) -> None:
    leader, other = await scalers.make("a"), await scalers.make("b")
    await leader.engine.tick()
    for step in range(6):
        await scalers.clock.advance(10.0)
        row = pb.DemandSample(
            start_unix_ms=round(START_S * 1e3) + step * 10_000, interval_ms=10_000, work=500.0
        )
        await (other if step % 2 else leader).api.ReportDemand(
            pb.ReportDemandRequest(pool="m", samples=[row]), metadata=AUTH
        )
        for scaler in (leader, other):
            await scaler.engine.tick()
    for scaler in (leader, other):
        assert [sample.work for sample in scaler.engine.pools["m"].pool.samples] == [500.0] * 6
        assert scaler.engine.pools["m"].answer == 5


async def test_the_time_that_starts_take_is_measured_where_it_is_seen_and_outlives_a_restart(
    scalers: Scalers,
) -> None:
    scaler = await scalers.make(actuator=Seen(1, late=4))
    await feed(scaler, [100.0] * 5 + [500.0] * 10)
    pool = scaler.engine.pools["m"].pool
    assert list(pool.lead_times.seconds) == [50.0] * 4 and pool.ahead == 5
    again = await scalers.make("b")
    assert again.engine.pools["m"].pool.learnt == pool.learnt
    assert again.engine.pools["m"].pool.lead_times.horizon_s == 50.0


async def test_a_dry_run_teaches_nothing_about_starts(scalers: Scalers) -> None:
    scaler = await scalers.make()
    await feed(scaler, [100.0] * 3 + [700.0] * 6)
    assert scaler.engine.pools["m"].answer == 7
    assert not scaler.engine.pools["m"].pool.lead_times.seconds


async def test_a_dry_run_decides_and_explains_and_touches_nothing(scalers: Scalers) -> None:
    class Untouched(DryRun):
        async def fleet(self) -> FleetStatus:
            return FleetStatus(2, 2)

        async def scale(self, wanted: int) -> None:
            raise AssertionError(wanted)

        async def replace(self, instance: str, left_s: float) -> bool:
            raise AssertionError(instance)

    drained: list[str] = []

    async def drain(instance: str, reason: str) -> int | None:
        drained.append(instance)
        return 0

    scaler = await scalers.make(actuator=Untouched(2), dry_run=True, drain=drain)
    await feed(scaler, [700.0] * 6)
    decision = scaler.engine.pools["m"].decisions[0]
    assert (decision.current, decision.wanted, decision.floor) == (
        2,
        6,
        7,
    ) and "rate" in decision.reason
    assert await scaler.engine.replace("i-1") == (False, True) and drained == ["i-1"]


async def test_a_schedule_holds_in_its_hours_and_the_reason_says_so(scalers: Scalers) -> None:
    began = datetime.datetime.fromtimestamp(START_S, datetime.UTC)
    hours = {
        "begins": (began + datetime.timedelta(minutes=1)).time(),
        "ends": (began + datetime.timedelta(minutes=3)).time(),
    }
    scaler = await scalers.make(schedules=[{"least": 3, **hours}])
    running, seen = scaler.engine.pools["m"], []
    for _ in range(5):
        await feed(scaler, [10.0] * 6)
        seen.append((running.answer, running.decisions[0].reason == "schedule"))
    assert seen == [
        (3, True),
        (3, True),
        (2, False),
        (1, False),
        (1, False),
    ]  # one less at each tick


async def test_rows_that_nobody_can_read_are_left_out(scalers: Scalers) -> None:
    first = await scalers.make()
    await feed(first, [400.0] * 6)
    client = open_store(scalers.url, retries=0)
    for row in ("not json", "[1]", "{}", "null", '[1, "x", 2]'):
        await client.rpush("penstock:scaler:m:samples", row)
        await client.lpush("penstock:scaler:m:decisions", row)
        await client.set("penstock:scaler:m:learnt", row)
        again = await scalers.make(f"after {row}")
        assert again.engine.pools["m"].answer == 4
        assert len(again.engine.pools["m"].pool.samples) == 6
    await client.aclose()


async def test_a_plan_is_only_looked_at(scalers: Scalers) -> None:
    actuator = Seen(1)
    scaler = await scalers.make(actuator=actuator)
    await feed(scaler, [300.0] * 6)
    looks, memory = actuator.looks, scaler.engine.pools["m"].pool.memory
    plan = (await scaler.api.GetPlan(pb.GetPlanRequest(pool="m"), metadata=AUTH)).decision
    assert (plan.wanted, plan.on_demand) == (3, 3)
    assert actuator.looks == looks and scaler.engine.pools["m"].pool.memory == memory


async def test_a_pool_that_fails_does_not_hold_up_the_others(
    scalers: Scalers, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = [PoolConfig.model_validate({**POOL, "name": name}) for name in ("bad", "good")]
    engine = Autoscaler(
        configs, {one.name: DryRun(1) for one in configs}, ScalerStore(None, "a"), scalers.clock
    )
    decide = PoolPlanner.decide

    def fails_once_bad(self: PoolPlanner, *words: int) -> object:
        if self.config.name == "bad":
            raise RuntimeError("this pool has failed")
        return decide(self, *words)

    monkeypatch.setattr(PoolPlanner, "decide", fails_once_bad)
    for name in ("bad", "good"):
        await engine.report(name, [Sample(START_S - 10.0, 500.0)])
    await engine.tick()
    assert (engine.pools["bad"].answer, engine.pools["good"].answer) == (1, 5)
    await engine.settled()


async def test_with_every_fit_failing_the_reactive_rules_decide_and_then_what_stands(
    scalers: Scalers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def dead(self: PoolPlanner) -> object:
        raise MemoryError("no room to fit")

    monkeypatch.setattr(PoolPlanner, "rebuild", dead)
    scaler = await scalers.make()
    await feed(scaler, [500.0] * 6)
    running = scaler.engine.pools["m"]
    assert running.answer == 5 and running.pool.reactive and not running.pool.latest
    assert "fitting m failed" in caplog.text
    monkeypatch.undo()
    await feed(scaler, [500.0] * 40)
    fitted = running.pool.latest
    assert fitted and running.answer >= 5
    monkeypatch.setattr(Forecaster, "train", dead)
    await feed(scaler, [500.0] * 60)
    assert running.pool.latest and running.answer >= 5


async def test_a_notice_about_one_that_no_pool_runs_drains_it_at_the_router(
    scalers: Scalers,
) -> None:
    asked: list[tuple[str, str]] = []

    async def drain(instance: str, reason: str) -> int | None:
        asked.append((instance, reason))
        return 3 if instance == "pod-1" else None

    scaler = await scalers.make(drain=drain)
    for instance, draining in (("pod-1", True), ("stranger", False)):
        request = pb.NotifyTerminationRequest(instance_id=instance, source="test")
        answer = await scaler.api.NotifyTermination(request, metadata=AUTH)
        assert (answer.replaced, answer.draining) == (False, draining)
    assert asked == [("pod-1", "spot_notice"), ("stranger", "spot_notice")]


async def test_a_notice_to_one_that_does_not_lead_is_acted_on_once_by_the_one_that_does(
    scalers: Scalers,
) -> None:
    class Own(DryRun):
        def __init__(self) -> None:
            super().__init__(1)
            self.asked: list[tuple[str, float]] = []

        async def replace(self, instance: str, left_s: float) -> bool:
            self.asked.append((instance, left_s))
            return True

    def notice(instance: str) -> pb.NotifyTerminationRequest:
        return pb.NotifyTerminationRequest(
            instance_id=instance, at_unix_ms=round(START_S * 1e3) + 120_000
        )

    acting, idle = Own(), Own()
    leader, other = await scalers.make("a", acting), await scalers.make("b", idle)
    await leader.engine.tick()
    await other.engine.tick()
    answer = await other.api.NotifyTermination(notice("i-1"), metadata=AUTH)
    assert (answer.replaced, answer.draining) == (False, True)
    await scalers.clock.advance(5.0)
    for _ in range(2):
        await leader.engine.tick()
    assert (acting.asked, idle.asked) == ([("i-1", 115.0)], [])
    assert (await leader.api.NotifyTermination(notice("i-2"), metadata=AUTH)).replaced
    assert [instance for instance, _ in acting.asked] == ["i-1", "i-2"]


async def test_a_pool_named_like_a_path_has_a_metric_that_kubernetes_can_ask_for(
    scalers: Scalers,
) -> None:
    name = "Qwen/Qwen2.5:7b"
    scaler = await scalers.make(name=name)
    ref = type(REF)(name="so", scalerMetadata={"pool": name})
    spec = (await scaler.keda.GetMetricSpec(ref)).metricSpecs[0]
    assert spec.metricName == "penstock-Qwen-Qwen2-5-7b"


class FakeRouter:
    """The registry of a router: how many serve, how many calls wait."""

    def __init__(self) -> None:
        self.fleets: dict[str, tuple[int, int]] = {}
        self.scaled: list[str] = []

    async def ListFleets(
        self, request: router_pb2.ListFleetsRequest, call: Call
    ) -> router_pb2.ListFleetsResponse:
        self.scaled = list(request.scaled)
        rows = [
            router_pb2.FleetState(model=name, serving=pair[0], waiting=pair[1])
            for name, pair in self.fleets.items()
        ]
        return router_pb2.ListFleetsResponse(fleets=rows)

    async def Drain(self, request: router_pb2.DrainRequest, call: Call) -> router_pb2.DrainResponse:
        return router_pb2.DrainResponse()

    async def Register(self, request: object, call: Call) -> router_pb2.RegisterResponse:
        return router_pb2.RegisterResponse()

    async def Heartbeat(self, request: object, call: Call) -> router_pb2.HeartbeatResponse:
        return router_pb2.HeartbeatResponse()


async def test_a_call_that_waits_at_the_router_ends_zero_at_the_next_tick() -> None:
    router, clock = FakeRouter(), FakeClock(START_S)
    async with serving([Endpoint(REGISTRY, router, internal(TOKEN))]) as server:
        peer = UnaryPeer(open_channel(server.address), REGISTRY, token=TOKEN, clock=clock)
        config = PoolConfig.model_validate({**POOL, "capacity": 0.0})
        actuator = Seen(0)
        engine = Autoscaler(
            [config],
            {"m": actuator},
            ScalerStore(None, "a"),
            clock,
            DemandSource(None, None, clock, peer),
        )
        await engine.tick()
        assert router.scaled == ["m"] and engine.pools["m"].decisions[0].wanted == 0
        router.fleets = {"m": (0, 2)}
        await engine.tick()
        decision = engine.pools["m"].decisions[0]
        assert (decision.wanted, decision.reason) == (1, "backlog")
        assert (await actuator.fleet()).wanted == 1
        await peer.close()


async def test_for_keda_the_router_says_what_serves_and_so_how_long_a_start_takes() -> None:
    router, clock = FakeRouter(), FakeClock(START_S)
    async with serving([Endpoint(REGISTRY, router, internal(TOKEN))]) as server:
        peer = UnaryPeer(open_channel(server.address), REGISTRY, token=TOKEN, clock=clock)
        config = PoolConfig.model_validate(POOL)
        engine = Autoscaler(
            [config],
            {"m": DryRun(1)},
            ScalerStore(None, "a"),
            clock,
            DemandSource(None, None, clock, peer),
        )
        router.fleets = {"m": (1, 0)}
        for step in range(8):
            await engine.report("m", [Sample(START_S + 10.0 * (step - 1), 300.0)])
            await engine.tick()
            await clock.advance(10.0)
            if step == 4:
                router.fleets = {"m": (3, 0)}
        assert list(engine.pools["m"].pool.lead_times.seconds) == [50.0, 50.0]
        await engine.settled()
        await peer.close()
