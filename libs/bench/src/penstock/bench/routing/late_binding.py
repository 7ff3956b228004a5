"""Late binding by the round trip between router and instance, beside the default: where it pays,
and where it steps aside.
"""

from __future__ import annotations

import statistics
from dataclasses import replace

from penstock.bench.harness.report import Table
from penstock.simulation.fleet import SERVICE_S, Simulation, at_load

ROUND_TRIPS = (0.0, 0.01, 0.02, 0.05, 0.1)
"""In service times."""
LOAD = 0.9
FLEETS = {
    "16 equal, C=1": ((1.0,) * 16, 1),
    "16 equal, C=4": ((1.0,) * 16, 4),
    "4 equal, C=1": ((1.0,) * 4, 1),
}


def table(seconds: float, seeds: tuple[int, ...]) -> Table:
    """p99 at 90 % load, both rules over the same arrivals."""
    rows = []
    for name, (speeds, slots) in FLEETS.items():
        for strategy in ("least_added_delay", "late_binding"):
            cells = [
                f"{_p99(strategy, speeds, slots, trip, seconds, seeds):.2f}" for trip in ROUND_TRIPS
            ]
            rows.append((f"{name}: {strategy}", *cells))
    columns = ("fleet: strategy", *(f"{trip:.0%} of S" for trip in ROUND_TRIPS))
    return Table(
        "Late binding by round trip: p99 in S at 90 % load, one router", columns, tuple(rows)
    )


def _p99(
    strategy: str,
    speeds: tuple[float, ...],
    slots: int,
    trip: float,
    seconds: float,
    seeds: tuple[int, ...],
) -> float:
    worlds = [
        replace(at_load(speeds, LOAD, seconds, slots, seed), round_trip_s=trip * SERVICE_S)
        for seed in seeds
    ]
    return statistics.fmean(Simulation(world, strategy).run().quantile(0.99) for world in worlds)
