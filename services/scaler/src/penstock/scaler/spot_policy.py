"""The online rule for spot: spread, extra spot, on-demand fall-back, back-off, hysteresis. Plain values in and out.

After SkyServe's SpotHedge (EuroSys 2025): on demand stands in for spot that is not ready, and goes when spot has come back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from penstock.scaler.placement import Plan
from penstock.scaler.zones import Zones


@dataclass(frozen=True)
class SpotKnobs:
    """How careful.

    `extra`: spot instances above the need; `base`: on-demand ones always; `margin`: of the extra, how many on demand replaces too.
    `patience_s`: how long a shortage may last before on demand stands in (more than 0 only for work that can wait).
    `share_most`: largest share of the spot instances in one zone; `horizon_s`: what a place must survive to count as good.
    `region_weight`: how much an instance in the same region counts as one in the same zone.
    """

    extra: int = 1
    base: int = 0
    margin: int = 0
    share_most: float = 0.5
    patience_s: float = 0.0
    horizon_s: float = 3_600.0
    region_weight: float = 0.25


@dataclass(frozen=True)
class Held:
    """Instances of one zone: those that serve and those that start."""

    ready: int = 0
    starting: int = 0

    @property
    def alive(self) -> int:
        return self.ready + self.starting


@dataclass(frozen=True)
class Placement:
    """What to do: launches and stops by zone, how many on-demand instances there should be, and who said so."""

    launch: Mapping[str, int]
    stop: Mapping[str, int]
    on_demand: int
    reason: str


def place(
    need: int,
    held: Mapping[str, Held],
    zones: Zones,
    knobs: SpotKnobs,
    now_s: float,
    plan: Plan | None = None,
    short_for_s: float = math.inf,
) -> Placement:
    """Decide where `need` instances run.

    Args:
        held: spot instances by zone.
        plan: what the solver wants; without one, and for what it asks of zones without room, the rule spreads by itself.
        short_for_s: how long fewer than `need` have been ready.
    """
    base, extra = (knobs.base, knobs.extra) if plan is None else (max(knobs.base, plan.on_demand), plan.extra(need))
    base = min(base, need)
    wanted = need - base + (extra if need else 0)
    ready = sum(one.ready for one in held.values())
    launch = _launches(wanted, held, zones, knobs, now_s, plan)
    stop = _stops(wanted, held, zones, knobs, now_s)
    fallback = (
        min(need, max(0, need + min(knobs.margin, extra) - ready - base)) if short_for_s >= knobs.patience_s else 0
    )
    return Placement(launch, stop, base + fallback, "online rule" if plan is None else "solver")


def _launches(
    wanted: int, held: Mapping[str, Held], zones: Zones, knobs: SpotKnobs, now_s: float, plan: Plan | None
) -> dict[str, int]:
    """One after the other, each into the zone where it is worth most given those before it."""
    counts = {name: held.get(name, Held()).alive for name in zones.by_name}
    open_now = [name for name, zone in zones.by_name.items() if zone.retry_at_s <= now_s]
    most = max(1, math.ceil(knobs.share_most * wanted))
    launch: dict[str, int] = {}
    while sum(counts.values()) < wanted:
        # Better together in one zone than on demand: the cap yields where no other zone is open.
        room = [name for name in open_now if counts[name] < most] or open_now
        asked = [name for name in room if plan is not None and counts[name] < plan.spot.get(name, 0)]
        if not room:
            break
        best = max(asked or room, key=lambda name: _worth(name, counts, zones, knobs, now_s))
        counts[best] += 1
        launch[best] = launch.get(best, 0) + 1
    return launch


def _worth(name: str, counts: Mapping[str, int], zones: Zones, knobs: SpotKnobs, now_s: float) -> float:
    """Chance to survive, less what is lost at once with the others there and in its region, less the price."""
    zone = zones.by_name[name]
    near = sum(count for other, count in counts.items() if other != name and zones.by_name[other].region == zone.region)
    together = counts[name] + knobs.region_weight * near
    survives = zones.survives(name, knobs.horizon_s, now_s)
    return survives - (1.0 - survives) * together - 0.1 * together - zone.price


def _stops(wanted: int, held: Mapping[str, Held], zones: Zones, knobs: SpotKnobs, now_s: float) -> dict[str, int]:
    """Give back what is above the wanted number, from where it is worth least."""
    counts = {name: one.alive for name, one in held.items() if one.alive}
    stop: dict[str, int] = {}
    while sum(counts.values()) > wanted:
        worst = min(counts, key=lambda name: _worth(name, {**counts, name: counts[name] - 1}, zones, knobs, now_s))
        counts[worst] -= 1
        stop[worst] = stop.get(worst, 0) + 1
        if not counts[worst]:
            del counts[worst]
    return stop
