"""The online rule for spot: spread, extra spot, on-demand fall-back, back-off, hysteresis.

Plain values in and out.

After SkyServe's SpotHedge (EuroSys 2025): on demand stands in for spot that is not ready, and goes
when spot has come back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from penstock.scaler.spot.offerings import Offering, Offerings
from penstock.scaler.spot.solver import Plan


@dataclass(frozen=True)
class SpotPolicy:
    """How careful.

    `extra`: spot instances above the need; `base`: on-demand ones always; `margin`: of the extra,
    how many on demand replaces too. `patience_s`: how long a shortage may last before on demand
    stands in (more than 0 only for work that can wait). `share_most`: largest share of the spot
    instances in one zone; `horizon_s`: what a place must survive to count as good. `region_weight`,
    `zone_weight`, `type_weight`: how much an instance in the same region, one of another type in
    the same zone, and one of the same of several types elsewhere count as one of its own kind.
    `price_most`: a place whose price may pass this share of the on-demand price (at the 0.9
    quantile) is not used.
    """

    extra: int = 1
    base: int = 0
    margin: int = 0
    share_most: float = 0.5
    patience_s: float = 0.0
    horizon_s: float = 3_600.0
    region_weight: float = 0.25
    zone_weight: float = 0.5
    type_weight: float = 0.25
    price_most: float = 1.0


@dataclass(frozen=True)
class MachineCount:
    """Machines of one place: those that serve and those that start."""

    ready: int = 0
    starting: int = 0

    @property
    def alive(self) -> int:
        return self.ready + self.starting


@dataclass(frozen=True)
class PlacementDecision:
    """What to do: launches and stops by zone, how many on-demand instances there should be, and who
    said so.
    """

    launch: Mapping[str, int]
    stop: Mapping[str, int]
    on_demand: int
    reason: str


def place(
    need: int,
    held: Mapping[str, MachineCount],
    zones: Offerings,
    knobs: SpotPolicy,
    now_s: float,
    plan: Plan | None = None,
    short_for_s: float = math.inf,
) -> PlacementDecision:
    """Decide where `need` instances run.

    Args:
        held: spot machines by place; a machine does as many instances as its place's `capacity`
            says.
        plan: what the solver wants; without one, and for what it asks of zones without room, the
            rule spreads by itself.
        short_for_s: how long fewer than `need` have been ready.
    """
    size = {name: zone.capacity for name, zone in zones.by_name.items()}
    base, extra = (
        (knobs.base, knobs.extra)
        if plan is None
        else (max(knobs.base, plan.on_demand), plan.extra(need, size))
    )
    base = min(base, need)
    wanted = need - base + (extra if need else 0)
    ready = sum(one.ready * size[name] for name, one in held.items())
    launch = _launches(wanted, held, zones, knobs, now_s, plan)
    stop = _stops(wanted, held, zones, knobs, now_s)
    fallback = (
        min(need, max(0, math.ceil(need + min(knobs.margin, extra) - ready - base)))
        if short_for_s >= knobs.patience_s
        else 0
    )
    return PlacementDecision(
        launch, stop, base + fallback, "online rule" if plan is None else "solver"
    )


def _launches(
    wanted: float,
    held: Mapping[str, MachineCount],
    zones: Offerings,
    knobs: SpotPolicy,
    now_s: float,
    plan: Plan | None,
) -> dict[str, int]:
    """One after the other, each into the place where it is worth most given those before it."""
    counts = {name: held.get(name, MachineCount()).alive for name in zones.by_name}
    usable = [name for name, zone in zones.by_name.items() if _usable(zone, knobs, now_s)]
    most = max(1, math.ceil(knobs.share_most * wanted))
    launch: dict[str, int] = {}
    while (missing := wanted - _does(counts, zones)) > 0:
        # Better together in one zone than on demand: the cap yields where no other zone is open.
        room = [name for name in usable if _in_zone(name, counts, zones) < most] or usable
        asked = [
            name for name in room if plan is not None and counts[name] < plan.spot.get(name, 0)
        ]
        if not room:
            break
        best = max(
            asked or room, key=lambda name: _worth(name, counts, zones, knobs, (now_s, missing))
        )
        counts[best] += 1
        launch[best] = launch.get(best, 0) + 1
    return launch


def _usable(zone: Offering, knobs: SpotPolicy, now_s: float) -> bool:
    return zone.retry_at_s <= now_s and zone.price_high < knobs.price_most


def _does(counts: Mapping[str, int], zones: Offerings) -> float:
    """Wanted instances that so many machines do."""
    return sum(count * zones.by_name[name].capacity for name, count in counts.items())


def _in_zone(name: str, counts: Mapping[str, int], zones: Offerings) -> float:
    """What the machines of every type do in the zone of this place."""
    where = zones.by_name[name].zone
    return sum(
        count * zones.by_name[other].capacity
        for other, count in counts.items()
        if zones.by_name[other].zone == where
    )


def _worth(
    name: str,
    counts: Mapping[str, int],
    zones: Offerings,
    knobs: SpotPolicy,
    moment: tuple[float, float],
) -> float:
    """Chance to survive, less what is lost at once with the others there and in its region, less
    the price of what is of use.

    Args:
        moment: the time, and how many instances are missing: what a large machine does beyond them
            is paid for in vain.
    """
    now_s, missing = moment
    zone = zones.by_name[name]
    together = zone.capacity * counts[name] + zone.capacity - 1.0
    for other, count in counts.items():
        if count and other != name:
            together += (
                _shared(zone, zones.by_name[other], knobs) * count * zones.by_name[other].capacity
            )
    survives = zones.survives(name, knobs.horizon_s, now_s)
    price = zone.price * max(1.0, zone.capacity / missing)
    return survives - (1.0 - survives) * together - 0.1 * together - price


def _shared(zone: Offering, other: Offering, knobs: SpotPolicy) -> float:
    """How much of the other's fate is the zone's."""
    kind = knobs.type_weight if zone.type and zone.type == other.type else 0.0
    if zone.region != other.region:
        return kind
    return max(kind, knobs.zone_weight if zone.zone == other.zone else knobs.region_weight)


def _stops(
    wanted: float,
    held: Mapping[str, MachineCount],
    zones: Offerings,
    knobs: SpotPolicy,
    now_s: float,
) -> dict[str, int]:
    """Give back what is above the wanted number, from where it is worth least, as long as enough is
    left.
    """
    counts = {name: one.alive for name, one in held.items() if one.alive}
    stop: dict[str, int] = {}
    while (surplus := _does(counts, zones) - wanted) > 0:
        spare = [name for name in counts if zones.by_name[name].capacity <= surplus]
        if not spare:
            break
        worst = min(
            spare,
            key=lambda name: _worth(
                name, {**counts, name: counts[name] - 1}, zones, knobs, (now_s, math.inf)
            ),
        )
        counts[worst] -= 1
        stop[worst] = stop.get(worst, 0) + 1
        if not counts[worst]:
            del counts[worst]
    return stop
