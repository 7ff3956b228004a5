"""Runs a fleet on a spot market, tick by tick, with the placement rule that serves.

The rule learns only from its own launches and losses.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from penstock.scaler.spot.offerings import Offering, Offerings
from penstock.scaler.spot.placement_rule import (
    MachineCount,
    PlacementDecision,
    SpotPolicy,
    SpotState,
    decide_placement,
)
from penstock.scaler.spot.planning import plan_machines
from penstock.scaler.spot.solver import Plan, SolverSettings
from penstock.simulation.spot_market import TICK_S, Market

SCENARIOS = 60
PLAN_EVERY_TICKS = 18


@dataclass
class SpotResult:
    """What a run came to: ticks, those with full and without capacity, missing instances, cost in
    on-demand instances, and how often the solver ran.
    """

    ticks: int = 0
    full: int = 0
    empty: int = 0
    missing: int = 0
    cost: float = 0.0
    plans: int = 0

    def figures(self, need: int) -> dict[str, float]:
        """Return shares of ticks and capacity, and the cost in on-demand fleets of that size."""
        return {
            "availability": 1.0 - self.missing / (need * self.ticks),
            "full_capacity": self.full / self.ticks,
            "no_capacity": self.empty / self.ticks,
            "cost_vs_on_demand": self.cost / (need * self.ticks),
        }


@dataclass
class SimulatedFleet:
    """The tick at which each instance is ready: of spot instances by zone, and on demand."""

    spot: dict[str, list[int]] = field(default_factory=dict)
    on_demand: list[int] = field(default_factory=list)

    def counts(self, tick: int) -> dict[str, MachineCount]:
        """Return the spot instances by zone."""
        ready = {name: sum(at <= tick for at in ready_at) for name, ready_at in self.spot.items()}
        return {
            name: MachineCount(ready[name], len(ready_at) - ready[name])
            for name, ready_at in self.spot.items()
        }


def simulate(
    market: Market,
    need: int,
    policy: SpotPolicy,
    start_ticks: int = 1,
    solver: SolverSettings | None = None,
) -> SpotResult:
    """Run the whole market.

    Args:
        need: instances wanted at all times.
        start_ticks: ticks from launch to ready.
        solver: None leaves the online rule alone.
    """
    run = _Run(market, need, policy, start_ticks, solver)
    for tick in range(len(market.capacity)):
        run.step(tick)
    return run.result


class _Run:
    """A run on a market, of which `step` does one tick."""

    def __init__(
        self,
        market: Market,
        need: int,
        policy: SpotPolicy,
        start_ticks: int,
        solver: SolverSettings | None,
    ) -> None:
        self.result = SpotResult()
        self._market = market
        self._need = need
        self._policy = policy
        self._start_ticks = start_ticks
        self._solver = solver
        self._offerings = Offerings(Offering(name, region) for name, region in market.zones.items())
        self._fleet = SimulatedFleet({name: [] for name in market.zones})
        self._plan: Plan | None = None
        self._short_since_s: float | None = None
        self._rng = np.random.default_rng(1)

    def step(self, tick: int) -> None:
        now_s = tick * TICK_S
        was_preempted = self._preempt(tick)
        for name, price in zip(self._market.zones, self._market.prices[tick], strict=True):
            self._offerings.record_price(name, float(price), now_s)
        self._offerings.record_availability()
        state = self._state(tick)
        if was_preempted or self._plan is None or tick % PLAN_EVERY_TICKS == 0:
            self._make_plan(state)
        self._carry_out(decide_placement(state, self._policy, self._plan), tick)
        self._count(tick)

    def _preempt(self, tick: int) -> bool:
        """Take away what there is no capacity for any more, the youngest first."""
        lost = False
        capacity = self._market.capacity[tick]
        for index, (name, ready_at) in enumerate(self._fleet.spot.items()):
            if len(ready_at) > capacity[index]:
                self._fleet.spot[name] = ready_at[: capacity[index]]
                self._offerings.record_loss(name, tick * TICK_S)
                lost = True
        return lost

    def _state(self, tick: int) -> SpotState:
        now_s, machines = tick * TICK_S, self._fleet.counts(tick)
        if sum(one.ready for one in machines.values()) >= self._need:
            self._short_since_s = None
        elif self._short_since_s is None:
            self._short_since_s = now_s
        shortage_s = 0.0 if self._short_since_s is None else now_s - self._short_since_s
        return SpotState(self._need, machines, self._offerings, now_s, shortage_s)

    def _make_plan(self, state: SpotState) -> None:
        if self._solver is None:
            return
        horizon_s = self._policy.horizon_s
        self._plan = plan_machines(state, horizon_s, self._solver, SCENARIOS, self._rng)
        self.result.plans += 1

    def _carry_out(self, placement: PlacementDecision, tick: int) -> None:
        now_s, ready_at, spot = tick * TICK_S, tick + self._start_ticks, self._fleet.spot
        for name, count in placement.stop.items():
            spot[name] = sorted(spot[name])[: len(spot[name]) - count]
            if not spot[name]:
                self._offerings.record_release(name, now_s)
        for index, name in enumerate(spot):
            for _ in range(placement.launch.get(name, 0)):
                if len(spot[name]) >= self._market.capacity[tick][index]:
                    self._offerings.record_refusal(name, now_s)
                    break
                spot[name].append(ready_at)
                self._offerings.record_launch(name, now_s)
        on_demand = self._fleet.on_demand
        on_demand += [ready_at] * (placement.on_demand - len(on_demand))
        self._fleet.on_demand = sorted(on_demand)[: placement.on_demand]

    def _count(self, tick: int) -> None:
        result, fleet = self.result, self._fleet
        prices = self._market.prices[tick]
        spot_cost = sum(
            float(price) * len(ready_at)
            for price, ready_at in zip(prices, fleet.spot.values(), strict=True)
        )
        groups = [fleet.on_demand, *fleet.spot.values()]
        ready = sum(at <= tick for ready_at in groups for at in ready_at)
        result.ticks += 1
        result.full += ready >= self._need
        result.empty += ready == 0
        result.missing += max(0, self._need - ready)
        result.cost += len(fleet.on_demand) + spot_cost
