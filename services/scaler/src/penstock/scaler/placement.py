"""The solver: how many instances in which zone, by a scenario program with HiGHS. Slow next to the online rule, which carries it out.

Minimise price, expected fall-back and churn so that the expected shortfall of the worst scenarios (CVaR; Rockafellar and Uryasev 2000)
stays below a share of the need.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PlanKnobs:
    """`start_share`: part of the hold that a fall-back needs to start; `shortfall`: price of a missing instance, in on-demand prices.

    `tail`, `tail_share`: the mean shortfall of the worst `1 - tail` scenarios stays below this share of the need; `churn`: price of a move.
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
class Plan:
    """Instances by zone, on-demand ones, and the cost in on-demand instances."""

    spot: dict[str, int]
    on_demand: int
    cost: float

    def extra(self, need: int) -> int:
        """Spot instances above what on demand leaves to do."""
        return max(0, sum(self.spot.values()) - max(0, need - self.on_demand))


def scenarios(
    history: list[tuple[bool, ...]], up: tuple[bool, ...], survive: Array, count: int, rng: np.random.Generator
) -> Array:
    """Availability of each zone over the hold, one row a scenario.

    What followed moments like this one (agreeing with what is up now), mixed with each zone's own chance to survive.
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
    need: int, prices: Mapping[str, float], now: Mapping[str, int], available: Array, knobs: PlanKnobs
) -> Plan | None:
    """Place `need` instances; None where the solver finds no plan in time (the online rule goes on alone).

    Args:
        prices: by zone, in on-demand prices; its order is that of the columns of `available`.
        now: instances by zone now.
        available: scenarios x zones, 1 where an instance lives through the hold.
    """
    names, (count, zones) = list(prices), available.shape
    # Columns: spot n_k | on demand | moves m_k | fall-back f_s | shortfall u_s | eta | tail v_s
    first = {"n": 0, "o": zones, "m": zones + 1, "f": 2 * zones + 1}
    first |= {"u": first["f"] + count, "eta": first["f"] + 2 * count}
    first["v"] = first["eta"] + 1
    width = first["v"] + count
    cost = np.zeros(width)
    cost[:zones] = list(prices.values())
    cost[first["o"]] = 1.0
    cost[first["m"] : first["f"]] = knobs.churn
    cost[first["f"] : first["u"]] = 1.0 / count
    cost[first["u"] : first["eta"]] = knobs.shortfall / count
    rows, low = _rows(available, need, [now.get(name, 0) for name in names], first, width, knobs)
    integral = np.zeros(width)
    integral[: zones + 1] = 1
    highest = np.full(width, np.inf)
    highest[:zones] = max(1, np.ceil(knobs.share_most * (need + 1)))
    lowest = np.zeros(width)
    lowest[first["o"]] = min(knobs.base, need)
    answer = milp(
        cost,
        constraints=LinearConstraint(rows, low, np.inf),
        bounds=Bounds(lowest, highest),
        integrality=integral,
        options={"time_limit": knobs.limit_s, "mip_rel_gap": 0.01},
    )
    if answer.x is None:
        return None
    chosen = np.round(answer.x[: zones + 1]).astype(int)
    spot = {name: int(number) for name, number in zip(names, chosen[:zones], strict=True) if number}
    return Plan(spot, int(chosen[zones]), float(answer.fun))


def _rows(
    available: Array, need: int, now: list[int], first: Mapping[str, int], width: int, knobs: PlanKnobs
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
