"""The solver: how many machines of which type in which zone, by a scenario program with HiGHS.

Slow next to the online rule, which carries it out.

Minimise price, expected fall-back and churn so that the expected shortfall of the worst scenarios
(CVaR; Rockafellar and Uryasev 2000) stays below a share of the need.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SolverSettings:
    """`start_share`: part of the hold that a fall-back needs to start; `shortfall`: price of a
    missing instance, in on-demand prices.

    `tail`, `tail_share`: the mean shortfall of the worst `1 - tail` scenarios stays below this
    share of the need; `churn`: price of a move.
    """

    share_most: float = 0.5
    base: int = 0
    start_share: float = 0.3
    shortfall: float = 10.0
    tail: float = 0.95
    tail_share: float = 0.75
    churn: float = 0.02
    limit_s: float = 1.0


@dataclass(frozen=True)
class SolverOffering:
    """A zone of one instance type as the solver sees it: `price` for one wanted instance, in
    on-demand prices; `capacity` of a machine in wanted instances; `held` machines now.
    """

    name: str
    zone: str
    price: float
    capacity: float = 1.0
    held: int = 0


@dataclass(frozen=True)
class Plan:
    """Machines by place, on-demand ones, and the cost in on-demand instances."""

    spot: dict[str, int]
    on_demand: int
    cost: float

    def extra(self, need: int, size: Mapping[str, float]) -> float:
        """What spot does above what on demand leaves to do, given what a machine of each place
        does.
        """
        does = sum(count * size.get(name, 1.0) for name, count in self.spot.items())
        return max(0.0, does - max(0, need - self.on_demand))


def scenarios(
    history: list[tuple[bool, ...]],
    up: tuple[bool, ...],
    survive: Array,
    count: int,
    rng: np.random.Generator,
) -> Array:
    """Availability of each zone over the hold, one row a scenario.

    What followed moments like this one (agreeing with what is up now), mixed with each zone's own
    chance to survive.
    """
    known = np.array(history, dtype=float)
    now = np.array(up)
    drawn = (rng.random((count, len(up))) < survive) & now
    if len(known) > 100:
        alike = (known[:-1] == now).mean(1)
        best = np.argsort(-alike, kind="stable")[: max(50, count)]
        after = known[rng.choice(best, count // 2) + 1] > 0
        drawn[: count // 2] = after & now
    answer: Array = drawn.astype(float)
    return answer


def solve(
    need: int, places: Sequence[SolverOffering], available: Array, knobs: SolverSettings
) -> Plan | None:
    """Place `need` instances; None where the solver finds no plan in time (the online rule goes on
    alone).

    Args:
        places: zones x types, in the order of the columns of `available`.
        available: scenarios x places, 1 where an instance lives through the hold.
    """
    count, zones = available.shape
    size = np.array([place.capacity for place in places])
    # Columns: spot n_k | on demand | moves m_k | fall-back f_s | shortfall u_s | eta | tail v_s
    first = {"n": 0, "o": zones, "m": zones + 1, "f": 2 * zones + 1}
    first |= {"u": first["f"] + count, "eta": first["f"] + 2 * count}
    first["v"] = first["eta"] + 1
    width = first["v"] + count
    cost = np.zeros(width)
    cost[:zones] = size * [place.price for place in places]
    cost[first["o"]] = 1.0
    cost[first["m"] : first["f"]] = knobs.churn * size
    cost[first["f"] : first["u"]] = 1.0 / count
    cost[first["u"] : first["eta"]] = knobs.shortfall / count
    rows, low = _rows(available * size, need, [place.held for place in places], first, width, knobs)
    # No zone, whatever types it has, does more than its share; one machine is always allowed.
    share = max(1.0, float(np.ceil(knobs.share_most * (need + 1))))
    spread, most = _spread(places, share, width)
    integral = np.zeros(width)
    integral[: zones + 1] = 1
    highest = np.full(width, np.inf)
    highest[:zones] = np.maximum(1.0, np.floor(share / size))
    lowest = np.zeros(width)
    lowest[first["o"]] = min(knobs.base, need)
    answer = milp(
        cost,
        constraints=[LinearConstraint(rows, low, np.inf), LinearConstraint(spread, -np.inf, most)],
        bounds=Bounds(lowest, highest),
        integrality=integral,
        options={"time_limit": knobs.limit_s, "mip_rel_gap": 0.01},
    )
    if answer.x is None:
        return None
    chosen = np.round(answer.x[: zones + 1]).astype(int)
    spot = {
        place.name: int(number)
        for place, number in zip(places, chosen[:zones], strict=True)
        if number
    }
    return Plan(spot, int(chosen[zones]), float(answer.fun))


def _spread(places: Sequence[SolverOffering], share: float, width: int) -> tuple[Array, Array]:
    """One row a zone: what its machines of all types do together, and the most they may."""
    zones = sorted({place.zone for place in places})
    rows, most = np.zeros((len(zones), width)), np.full(len(zones), share)
    for column, place in enumerate(places):
        row = zones.index(place.zone)
        rows[row, column] = place.capacity
        most[row] = max(most[row], place.capacity)
    return rows, most


def _rows(
    available: Array,
    need: int,
    now: list[int],
    first: Mapping[str, int],
    width: int,
    knobs: SolverSettings,
) -> tuple[Array, Array]:
    """The constraints as `rows @ x >= low`."""
    count, zones = available.shape
    each = np.arange(count)
    covered = np.zeros((count, width))
    covered[:, :zones] = available
    covered[:, first["o"]] = 1.0
    covered[each, first["f"] + each] = 1.0 - knobs.start_share
    covered[each, first["u"] + each] = 1.0
    tail = np.zeros((count, width))
    tail[each, first["v"] + each] = 1.0
    tail[each, first["u"] + each] = -1.0
    tail[:, first["eta"]] = 1.0
    bound = np.zeros((1, width))
    bound[0, first["eta"]] = -1.0
    bound[0, first["v"] :] = -1.0 / count / (1.0 - knobs.tail)
    moves = np.zeros((2 * zones, width))
    zone = np.arange(zones)
    for half, sign in ((0, -1.0), (1, 1.0)):
        moves[half * zones + zone, zone] = sign
        moves[half * zones + zone, first["m"] + zone] = 1.0
    rows = np.vstack([covered, tail, bound, moves])
    low = np.concatenate(
        [
            np.full(count, float(need)),
            np.zeros(count),
            [-knobs.tail_share * need],
            -np.array(now, float),
            np.array(now, float),
        ]
    )
    return rows, low
