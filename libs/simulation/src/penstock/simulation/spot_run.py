"""Running a fleet on a spot market, tick by tick, with the policy code that serves.

It learns only from its own launches and losses.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from penstock.scaler.spot.fleet import places
from penstock.scaler.spot.offerings import Offering, Offerings
from penstock.scaler.spot.placement_rule import MachineCount, PlacementDecision, SpotPolicy, place
from penstock.scaler.spot.solver import Plan, SolverSettings, scenarios, solve
from penstock.simulation.spot_market import TICK_S, Market

SCENARIOS = 60


@dataclass
class Outcome:
    """Shares of ticks and of capacity; cost in on-demand fleets of the needed size."""

    ticks: int = 0
    full: int = 0
    missing: float = 0.0
    none: int = 0
    cost: float = 0.0
    solves: int = 0

    def figures(self, need: int) -> dict[str, float]:
        return {
            "availability": 1.0 - self.missing / (need * self.ticks),
            "full_capacity": self.full / self.ticks,
            "no_capacity": self.none / self.ticks,
            "cost_vs_on_demand": self.cost / (need * self.ticks),
        }


@dataclass
class FleetStatus:
    """Instances by zone with the tick at which each is ready; on-demand ones likewise."""

    spot: dict[str, list[int]] = field(default_factory=dict)
    on_demand: list[int] = field(default_factory=list)


def simulate(
    market: Market,
    need: int,
    knobs: SpotPolicy,
    start_ticks: int = 1,
    solver: SolverSettings | None = None,
    seed: int = 1,
) -> Outcome:
    """Run the whole market; `solver` None leaves the online rule alone."""
    zones = Offerings([Offering(name, region) for name, region in market.zones.items()])
    fleet, outcome, rng = (
        FleetStatus({name: [] for name in market.zones}),
        Outcome(),
        np.random.default_rng(seed),
    )
    plan: Plan | None = None
    short_since: float | None = None
    for tick, (room, prices) in enumerate(zip(market.room, market.prices, strict=True)):
        now = tick * TICK_S
        changed = _preempt(fleet, zones, room, now)
        for name, price in zip(market.zones, prices, strict=True):
            zones.priced(name, float(price), now)
        zones.note()
        if solver is not None and (changed or plan is None or tick % 18 == 0):
            plan = _solve(fleet, zones, need, knobs, solver, (now, rng))
            outcome.solves += 1
        held = _held(fleet, tick)
        short = sum(one.ready for one in held.values()) < need
        short_since = (now if short_since is None else short_since) if short else None
        lasted = 0.0 if short_since is None else now - short_since
        _act(
            fleet,
            zones,
            (room, tick, start_ticks),
            place(need, held, zones, knobs, now, plan, lasted),
        )
        _count(outcome, fleet, market, tick, need)
    return outcome


def _preempt(fleet: FleetStatus, zones: Offerings, room: np.ndarray, now: float) -> bool:
    """Take away what has no room any more, the youngest first."""
    lost = False
    for place_, (name, alive) in enumerate(fleet.spot.items()):
        if len(alive) > room[place_]:
            fleet.spot[name] = alive[: room[place_]]
            zones.lost(name, now)
            lost = True
    return lost


def _held(fleet: FleetStatus, tick: int) -> dict[str, MachineCount]:
    counts = {name: sum(ready <= tick for ready in alive) for name, alive in fleet.spot.items()}
    return {
        name: MachineCount(counts[name], len(alive) - counts[name])
        for name, alive in fleet.spot.items()
    }


def _solve(
    fleet: FleetStatus,
    zones: Offerings,
    need: int,
    knobs: SpotPolicy,
    solver: SolverSettings,
    drawn: tuple[float, np.random.Generator],
) -> Plan | None:
    now, rng = drawn
    names = list(zones.by_name)
    survive = np.array([zones.survives(name, knobs.horizon_s, now) for name in names])
    open_now = tuple(zones.by_name[name].retry_at_s <= now for name in names)
    rows = scenarios(list(zones.history), open_now, survive, SCENARIOS, rng)
    return solve(
        need, places(zones, {name: len(alive) for name, alive in fleet.spot.items()}), rows, solver
    )


def _act(
    fleet: FleetStatus,
    zones: Offerings,
    moment: tuple[np.ndarray, int, int],
    asked: PlacementDecision,
) -> None:
    room, tick, start_ticks = moment
    now = tick * TICK_S
    for name, count in asked.stop.items():
        fleet.spot[name] = sorted(fleet.spot[name])[: len(fleet.spot[name]) - count]
        if not fleet.spot[name]:
            zones.left(name, now)
    for place_, name in enumerate(fleet.spot):
        for _ in range(asked.launch.get(name, 0)):
            if len(fleet.spot[name]) < room[place_]:
                fleet.spot[name].append(tick + start_ticks)
                zones.launched(name, now)
            else:
                zones.refused(name, now)
                break
    while len(fleet.on_demand) < asked.on_demand:
        fleet.on_demand.append(tick + start_ticks)
    fleet.on_demand = sorted(fleet.on_demand)[: asked.on_demand]


def _count(outcome: Outcome, fleet: FleetStatus, market: Market, tick: int, need: int) -> None:
    ready = Counter({"spot": sum(one <= tick for alive in fleet.spot.values() for one in alive)})
    have = ready["spot"] + sum(one <= tick for one in fleet.on_demand)
    prices = dict(zip(market.zones, market.prices[tick], strict=True))
    outcome.ticks += 1
    outcome.full += have >= need
    outcome.none += have == 0
    outcome.missing += max(0, need - have)
    outcome.cost += len(fleet.on_demand) + sum(
        float(prices[name]) * len(alive) for name, alive in fleet.spot.items()
    )
