"""The online rule of a spot fleet: where machines are launched and stopped, and how many instances
run on demand. Pure: plain values in and out.

Machines are spread over zones and failure domains, with one or more above the need. On-demand
instances stand in for spot machines that are not ready, and go when spot is back (SpotHedge; Mao et
al., SkyServe, EuroSys 2025). A plan of the solver, where there is one, is followed first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from penstock.scaler.spot.offerings import Offering, Offerings
from penstock.scaler.spot.solver import Plan
from penstock.service.purity import pure

CONCENTRATION_PENALTY = 0.1
"""Value lost for each instance's worth of machines that would be lost together."""


@dataclass(frozen=True)
class SpotPolicy:
    """How careful the placement is.

    Args:
        overprovision: spot instances above the need.
        on_demand_base: instances that always run on demand.
        fallback_margin: how many of the overprovisioned instances on demand replaces, too.
        max_zone_share: largest share of the spot instances in one zone.
        on_demand_delay_s: how long a shortage lasts before on demand stands in. Above 0 only for
            work that can wait.
        horizon_s: the time that a machine should survive.
        failure_domain_weight, zone_weight, type_weight: how much a machine in the same failure
            domain, one of another type in the same zone, and one of the same type elsewhere count
            as one of the same offering.
        max_price: an offering is not used whose price may exceed this share of the on-demand price
            (at its 0.9 quantile).
    """

    overprovision: int = 1
    on_demand_base: int = 0
    fallback_margin: int = 0
    max_zone_share: float = 0.5
    on_demand_delay_s: float = 0.0
    horizon_s: float = 3_600.0
    failure_domain_weight: float = 0.25
    zone_weight: float = 0.5
    type_weight: float = 0.25
    max_price: float = 1.0


@dataclass(frozen=True)
class MachineCount:
    """Machines of one offering: those that serve and those that start."""

    ready: int = 0
    starting: int = 0

    @property
    def total(self) -> int:
        return self.ready + self.starting


@dataclass(frozen=True)
class SpotState:
    """What is known when machines are placed.

    Args:
        need: instances wanted.
        machines: spot machines by offering.
        offerings: what is learned about them; only read.
        now_s: the time, in Unix seconds.
        shortage_s: how long fewer than `need` instances have been ready.
    """

    need: int
    machines: Mapping[str, MachineCount]
    offerings: Offerings
    now_s: float
    shortage_s: float = math.inf


@dataclass(frozen=True)
class PlacementDecision:
    """What to do: machines to launch and to stop by offering, and how many instances there should
    be on demand. `reason`: who decided, for people.
    """

    launch: Mapping[str, int]
    stop: Mapping[str, int]
    on_demand: int
    reason: str


@pure
def decide_placement(
    state: SpotState, policy: SpotPolicy, plan: Plan | None = None
) -> PlacementDecision:
    """Decide where the needed instances run.

    Args:
        plan: of the solver; without one, and where an offering of the plan has no capacity, the
            rule spreads machines by itself.
    """
    capacities = {name: one.capacity for name, one in state.offerings.by_name.items()}
    on_demand_base: int = policy.on_demand_base
    extra: float = policy.overprovision
    if plan is not None:
        on_demand_base = max(on_demand_base, plan.on_demand)
        extra = plan.excess_capacity(state.need, capacities)
    on_demand_base = min(on_demand_base, state.need)
    wanted = state.need - on_demand_base + (extra if state.need else 0)
    fallback = 0
    if state.shortage_s >= policy.on_demand_delay_s:
        ready = sum(one.ready * capacities[name] for name, one in state.machines.items())
        margin = min(policy.fallback_margin, extra)
        missing = math.ceil(state.need + margin - ready - on_demand_base)
        fallback = min(state.need, max(0, missing))
    return PlacementDecision(
        launch=_launches(wanted, state, policy, plan),
        stop=_stops(wanted, state, policy),
        on_demand=on_demand_base + fallback,
        reason="online rule" if plan is None else "solver",
    )


def _launches(
    wanted: float, state: SpotState, policy: SpotPolicy, plan: Plan | None
) -> dict[str, int]:
    """Launches until the wanted capacity is there; each into the offering of the highest value."""
    offerings = state.offerings
    counts = {name: state.machines.get(name, MachineCount()).total for name in offerings.by_name}
    usable = [
        name for name, one in offerings.by_name.items() if _is_usable(one, policy, state.now_s)
    ]
    zone_limit = max(1, math.ceil(policy.max_zone_share * wanted))
    planned = plan.spot if plan is not None else {}
    launch: dict[str, int] = {}
    while usable and (missing := wanted - _capacity(counts, offerings)) > 0:
        # The zone limit yields where no other zone is open: better one zone than on demand.
        below_limit = [
            name for name in usable if _zone_capacity(name, counts, offerings) < zone_limit
        ]
        candidates = below_limit or usable
        in_plan = [name for name in candidates if counts[name] < planned.get(name, 0)]
        valuation = _Valuation(state, policy, counts, missing)
        best = max(in_plan or candidates, key=valuation.value)
        counts[best] += 1
        launch[best] = launch.get(best, 0) + 1
    return launch


def _stops(wanted: float, state: SpotState, policy: SpotPolicy) -> dict[str, int]:
    """Stops of what exceeds the wanted capacity; each from the offering of the lowest value."""
    offerings = state.offerings
    counts = {name: one.total for name, one in state.machines.items() if one.total}
    stop: dict[str, int] = {}
    while (surplus := _capacity(counts, offerings) - wanted) > 0:
        spare = [name for name in counts if offerings.by_name[name].capacity <= surplus]
        if not spare:
            break
        values = {
            name: _Valuation(state, policy, {**counts, name: counts[name] - 1}).value(name)
            for name in spare
        }
        worst = min(spare, key=lambda name: values[name])
        counts[worst] -= 1
        stop[worst] = stop.get(worst, 0) + 1
        if not counts[worst]:
            del counts[worst]
    return stop


def _is_usable(offering: Offering, policy: SpotPolicy, now_s: float) -> bool:
    return offering.retry_at_s <= now_s and offering.high_price < policy.max_price


def _capacity(counts: Mapping[str, int], offerings: Offerings) -> float:
    """Wanted instances that so many machines replace."""
    return sum(count * offerings.by_name[name].capacity for name, count in counts.items())


def _zone_capacity(name: str, counts: Mapping[str, int], offerings: Offerings) -> float:
    """Wanted instances that the machines of all types in the offering's zone replace."""
    zone = offerings.by_name[name].zone
    return sum(
        count * offerings.by_name[other].capacity
        for other, count in counts.items()
        if offerings.by_name[other].zone == zone
    )


@dataclass(frozen=True)
class _Valuation:
    """What one more machine of an offering is worth.

    Args:
        counts: machines by offering without that one.
        missing: instances that are missing; capacity beyond them is paid for in vain.
    """

    state: SpotState
    policy: SpotPolicy
    counts: Mapping[str, int]
    missing: float = math.inf

    def value(self, name: str) -> float:
        """Return its chance to survive, less what would be lost with it, less its price."""
        offering = self.state.offerings.by_name[name]
        survival = self.state.offerings.survival_probability(
            name, self.policy.horizon_s, self.state.now_s
        )
        correlated = self._correlated_capacity(offering)
        price = offering.price * max(1.0, offering.capacity / self.missing)
        expected_loss = (1.0 - survival) * correlated
        return survival - expected_loss - CONCENTRATION_PENALTY * correlated - price

    def _correlated_capacity(self, offering: Offering) -> float:
        """Instances that would be lost together with this machine, weighted by correlation."""
        together = offering.capacity * self.counts[offering.name] + offering.capacity - 1.0
        for name, count in self.counts.items():
            if count and name != offering.name:
                other = self.state.offerings.by_name[name]
                together += _correlation(offering, other, self.policy) * count * other.capacity
        return together


def _correlation(offering: Offering, other: Offering, policy: SpotPolicy) -> float:
    """How much of the other's losses happen together with the offering's, 0 to 1."""
    by_type = 0.0
    if offering.instance_type and offering.instance_type == other.instance_type:
        by_type = policy.type_weight
    if offering.failure_domain != other.failure_domain:
        return by_type
    by_place = policy.failure_domain_weight
    if offering.zone == other.zone:
        by_place = policy.zone_weight
    return max(by_type, by_place)
