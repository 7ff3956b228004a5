"""Late binding by the round trip between router and instance, beside the default strategy."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace

from penstock.bench.harness.report import Table
from penstock.simulation.fleet import SERVICE_S, FleetSimulation, scenario_at_load

ROUND_TRIPS = (0.0, 0.01, 0.02, 0.05, 0.1)
"""In mean service times."""
LOAD = 0.9
FLEETS = {
    "16 equal, C=1": ((1.0,) * 16, 1),
    "16 equal, C=4": ((1.0,) * 16, 4),
    "4 equal, C=1": ((1.0,) * 4, 1),
}
"""Speeds and slots."""


def table(seconds: float, seeds: Sequence[int]) -> Table:
    """p99 at 90 % load of both strategies over the same arrivals."""
    rows = []
    for fleet, (speeds, slots) in FLEETS.items():
        for strategy in ("least_added_delay", "late_binding"):
            cells = []
            for round_trip in ROUND_TRIPS:
                scenarios = [
                    replace(
                        scenario_at_load(speeds, LOAD, seconds, slots, seed),
                        round_trip_s=round_trip * SERVICE_S,
                    )
                    for seed in seeds
                ]
                p99 = statistics.fmean(
                    FleetSimulation(scenario, strategy).run().quantile(0.99)
                    for scenario in scenarios
                )
                cells.append(f"{p99:.2f}")
            rows.append((f"{fleet}: {strategy}", *cells))
    columns = ("fleet: strategy", *(f"{round_trip:.0%} of S" for round_trip in ROUND_TRIPS))
    title = "Late binding by round trip: p99 in S at 90 % load, one router"
    return Table(title, columns, tuple(rows))
