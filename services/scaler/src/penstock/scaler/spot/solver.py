"""A plan of machines by offering: a stochastic program over scenarios, solved by HiGHS.

    minimise    price of spot and on-demand machines + price of moves
                + expected price of fallback and of missing instances
    subject to  in each scenario: spot that survives + on demand + fallback + missing >= need
                mean shortfall of the worst scenarios (CVaR) <= a share of the need
                machines of one zone <= a share of the need

CVaR after Rockafellar and Uryasev (2000). Solving takes up to a second: not for an event loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.optimize import Bounds, LinearConstraint

Array = NDArray[np.float64]

RELATIVE_GAP = 0.01
MIN_MOMENTS = 100
"""Fewer recorded moments than this are not drawn from."""
MIN_SIMILAR = 50


@dataclass(frozen=True)
class SolverSettings:
    """Settings of the program. Prices are those of an on-demand instance for the horizon.

    Args:
        max_zone_share: largest share of the need (and one more) in one zone.
        on_demand_base: instances that always run on demand.
        start_share: share of the horizon that a fallback needs to start.
        shortfall_price: price of a missing instance.
        cvar_level, max_tail_shortfall: the mean shortfall of the worst `1 - cvar_level` of the
            scenarios stays below this share of the need.
        move_price: price of starting or stopping one instance's worth of machines.
        time_limit_s: longest time to solve.
    """

    max_zone_share: float = 0.5
    on_demand_base: int = 0
    start_share: float = 0.3
    shortfall_price: float = 10.0
    cvar_level: float = 0.95
    max_tail_shortfall: float = 0.75
    move_price: float = 0.02
    time_limit_s: float = 1.0


@dataclass(frozen=True)
class SolverOffering:
    """An offering as the program sees it.

    Args:
        price: of one wanted instance, as a share of the on-demand price.
        capacity: wanted instances that one machine replaces.
        machines: those that run there now.
    """

    name: str
    zone: str
    price: float
    capacity: float = 1.0
    machines: int = 0


@dataclass(frozen=True)
class Plan:
    """Machines by offering, instances on demand, and the cost in on-demand instances."""

    spot: dict[str, int]
    on_demand: int
    cost: float

    def excess_capacity(self, need: int, capacities: Mapping[str, float]) -> float:
        """Return the spot capacity beyond what is needed beside the instances on demand.

        Args:
            capacities: wanted instances that one machine replaces, by offering.
        """
        capacity = sum(count * capacities.get(name, 1.0) for name, count in self.spot.items())
        return max(0.0, capacity - max(0, need - self.on_demand))


def draw_scenarios(
    history: Sequence[tuple[bool, ...]],
    is_open: tuple[bool, ...],
    survival: Array,
    count: int,
    rng: np.random.Generator,
) -> Array:
    """Draw scenarios of which offerings last through the horizon.

    Half of them are what followed recorded moments most like the present one; the others are drawn
    from each offering's own probability to survive. An offering closed now is so in all.

    Args:
        history: which offerings had machines, by moment.
        is_open: which offerings may be used now.
        survival: each offering's probability to survive the horizon.

    Returns:
        Scenarios x offerings, 1 where machines survive.
    """
    known = np.array(history, dtype=float)
    now = np.array(is_open)
    drawn = (rng.random((count, len(is_open))) < survival) & now
    if len(known) > MIN_MOMENTS:
        similarity = (known[:-1] == now).mean(1)
        most_similar = np.argsort(-similarity, kind="stable")[: max(MIN_SIMILAR, count)]
        after = known[rng.choice(most_similar, count // 2) + 1] > 0
        drawn[: count // 2] = after & now
    scenarios: Array = drawn.astype(float)
    return scenarios


@dataclass(frozen=True)
class _Columns:
    """Where the program's variables stand, for so many offerings and scenarios.

    spot machines of each offering | instances on demand | moves of each offering |
    fallback in each scenario | missing in each scenario | the CVaR's threshold |
    shortfall above the threshold in each scenario
    """

    offerings: int
    scenarios: int

    @property
    def spot(self) -> slice:
        return slice(0, self.offerings)

    @property
    def on_demand(self) -> int:
        return self.offerings

    @property
    def moves(self) -> slice:
        return slice(self.offerings + 1, 2 * self.offerings + 1)

    @property
    def fallback(self) -> slice:
        return slice(self.moves.stop, self.moves.stop + self.scenarios)

    @property
    def missing(self) -> slice:
        return slice(self.fallback.stop, self.fallback.stop + self.scenarios)

    @property
    def threshold(self) -> int:
        return int(self.missing.stop)

    @property
    def tail(self) -> slice:
        return slice(self.threshold + 1, self.threshold + 1 + self.scenarios)

    @property
    def count(self) -> int:
        return int(self.tail.stop)


def solve(
    need: int, offerings: Sequence[SolverOffering], scenarios: Array, settings: SolverSettings
) -> Plan | None:
    """Return the plan for `need` instances; None where none is found in time.

    Args:
        offerings: in the order of the columns of `scenarios`.
        scenarios: scenarios x offerings, 1 where machines survive.
    """
    from scipy.optimize import milp  # imported by scalers that buy spot machines

    columns = _Columns(len(offerings), len(scenarios))
    capacity = np.array([offering.capacity for offering in offerings])
    zone_limit = max(1.0, float(np.ceil(settings.max_zone_share * (need + 1))))
    integral = np.zeros(columns.count)
    integral[: columns.offerings + 1] = 1
    found = milp(
        _prices(offerings, columns, settings),
        constraints=[
            _scenario_constraints(need, offerings, scenarios, columns, settings),
            _zone_constraints(offerings, zone_limit, columns.count),
        ],
        bounds=_bounds(need, capacity, zone_limit, columns, settings),
        integrality=integral,
        options={"time_limit": settings.time_limit_s, "mip_rel_gap": RELATIVE_GAP},
    )
    if found.x is None:
        return None
    counts = np.round(found.x).astype(int)
    spot = {
        offering.name: int(count)
        for offering, count in zip(offerings, counts[columns.spot], strict=True)
        if count
    }
    return Plan(spot, int(counts[columns.on_demand]), float(found.fun))


def _prices(
    offerings: Sequence[SolverOffering], columns: _Columns, settings: SolverSettings
) -> Array:
    capacity = np.array([offering.capacity for offering in offerings])
    prices = np.zeros(columns.count)
    prices[columns.spot] = capacity * [offering.price for offering in offerings]
    prices[columns.on_demand] = 1.0
    prices[columns.moves] = settings.move_price * capacity
    prices[columns.fallback] = 1.0 / columns.scenarios
    prices[columns.missing] = settings.shortfall_price / columns.scenarios
    return prices


def _bounds(
    need: int, capacity: Array, zone_limit: float, columns: _Columns, settings: SolverSettings
) -> Bounds:
    """No offering takes more than a zone may; one machine is always allowed."""
    from scipy.optimize import Bounds

    lowest = np.zeros(columns.count)
    lowest[columns.on_demand] = min(settings.on_demand_base, need)
    highest = np.full(columns.count, np.inf)
    highest[columns.spot] = np.maximum(1.0, np.floor(zone_limit / capacity))
    return Bounds(lowest, highest)


def _zone_constraints(
    offerings: Sequence[SolverOffering], zone_limit: float, width: int
) -> LinearConstraint:
    """The machines of one zone, whatever their types, replace at most the zone's limit."""
    from scipy.optimize import LinearConstraint

    zones = sorted({offering.zone for offering in offerings})
    rows = np.zeros((len(zones), width))
    highest = np.full(len(zones), zone_limit)
    for column, offering in enumerate(offerings):
        row = zones.index(offering.zone)
        rows[row, column] = offering.capacity
        highest[row] = max(highest[row], offering.capacity)
    return LinearConstraint(rows, -np.inf, highest)


def _scenario_constraints(
    need: int,
    offerings: Sequence[SolverOffering],
    scenarios: Array,
    columns: _Columns,
    settings: SolverSettings,
) -> LinearConstraint:
    """The need, the tail's shortfall and the moves, as `rows @ x >= lowest`."""
    from scipy.optimize import LinearConstraint

    capacity = np.array([offering.capacity for offering in offerings])
    now = np.array([offering.machines for offering in offerings], float)
    rows = [
        _need_rows(scenarios * capacity, columns, settings.start_share),
        _tail_rows(columns),
        _cvar_row(columns, settings.cvar_level),
        _move_rows(columns),
    ]
    lowest = [
        np.full(columns.scenarios, float(need)),
        np.zeros(columns.scenarios),
        np.array([-settings.max_tail_shortfall * need]),
        -now,
        now,
    ]
    return LinearConstraint(np.vstack(rows), np.concatenate(lowest), np.inf)


def _need_rows(surviving: Array, columns: _Columns, start_share: float) -> Array:
    """Surviving spot + on demand + fallback, less its start, + missing >= need."""
    rows = np.zeros((columns.scenarios, columns.count))
    rows[:, columns.spot] = surviving
    rows[:, columns.on_demand] = 1.0
    rows[:, columns.fallback] = (1.0 - start_share) * np.eye(columns.scenarios)
    rows[:, columns.missing] = np.eye(columns.scenarios)
    return rows


def _tail_rows(columns: _Columns) -> Array:
    """Shortfall above the threshold >= missing - threshold."""
    rows = np.zeros((columns.scenarios, columns.count))
    rows[:, columns.tail] = np.eye(columns.scenarios)
    rows[:, columns.missing] = -np.eye(columns.scenarios)
    rows[:, columns.threshold] = 1.0
    return rows


def _cvar_row(columns: _Columns, level: float) -> Array:
    """-(threshold + mean shortfall above it / (1 - level)) >= -(the most allowed)."""
    row = np.zeros((1, columns.count))
    row[0, columns.threshold] = -1.0
    row[0, columns.tail] = -1.0 / columns.scenarios / (1.0 - level)
    return row


def _move_rows(columns: _Columns) -> Array:
    """Moves >= machines started, and >= machines stopped."""
    each = np.eye(columns.offerings)
    rows = np.zeros((2, columns.offerings, columns.count))
    rows[:, :, columns.moves] = each
    rows[0, :, columns.spot] = -each
    rows[1, :, columns.spot] = each
    return rows.reshape(2 * columns.offerings, columns.count)
