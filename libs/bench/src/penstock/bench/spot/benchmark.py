"""Spot instances: how much of the needed capacity is there, at which share of the on-demand cost,
and whether a request is lost.

The market is simulated (`spot_market.py`): nine zones in three regions over 45.5 days in ticks of
195 s, room that correlates 0.43 within and 0.14 across regions, heavy-tailed lives, spot at 0.3 of
on demand; four instances are needed, a start takes a tick, and no notice is used. The policy is the
code that serves and learns only from its own launches and losses. `lost_requests` is measured on
real processes: instances are told to go during load, replaced, drained and ended.
"""

from __future__ import annotations

import statistics

import numpy as np
from penstock.bench.harness.options import Options
from penstock.bench.harness.report import Bound, Plot, Result, Table
from penstock.bench.spot import notices as spot_notices
from penstock.scaler.spot.placement_rule import SpotPolicy
from penstock.scaler.spot.solver import SolverSettings
from penstock.simulation.spot_market import Market, bamboo, correlations, generate
from penstock.simulation.spot_run import simulate

NEED = 4
SEEDS = (1, 2, 3, 4)
SHIPPED = SpotPolicy()
RULES: dict[str, tuple[SpotPolicy, SolverSettings | None]] = {
    "shipped: one extra, fall-back": (SHIPPED, None),
    "no extra": (SpotPolicy(extra=0), None),
    "no extra, fall-back after 195 s": (SpotPolicy(extra=0, patience_s=195.0), None),
    "no extra, fall-back after 600 s": (SpotPolicy(extra=0, patience_s=600.0), None),
    "two extra": (SpotPolicy(extra=2), None),
    "one extra, one always on demand": (SpotPolicy(extra=1, base=1), None),
    "spot only": (SpotPolicy(extra=0, patience_s=1e12), None),
    "solver": (SHIPPED, SolverSettings()),
}
FRONTIER = (
    "spot only",
    "no extra, fall-back after 600 s",
    "no extra, fall-back after 195 s",
    "no extra",
    "shipped: one extra, fall-back",
)

BOUNDS = {
    "availability": Bound(">=", 0.995),
    "cost_vs_on_demand": Bound("<=", 0.40),
    "lost_requests": Bound("<=", 0),
}


def run(options: Options) -> Result:
    markets = [
        generate(seed, 4.0 if options.quick else 45.5)
        for seed in (SEEDS[:1] if options.quick else SEEDS)
    ]
    rows = {name: _mean(markets, knobs, solver) for name, (knobs, solver) in RULES.items()}
    slow = _mean(markets, SHIPPED, None, start_ticks=2)
    shipped = rows["shipped: one extra, fall-back"]
    figures: dict[str, float] = {
        "availability": shipped["availability"],
        "full_capacity": shipped["full_capacity"],
        "cost_vs_on_demand": shipped["cost_vs_on_demand"],
        "cost_at_995": _cost_at(0.995, rows),
    }
    lost, sent, context = spot_notices.measure(options)
    if sent:
        figures["lost_requests"] = lost
    within, across = (
        statistics.fmean(pair) for pair in zip(*map(correlations, markets), strict=True)
    )
    real = bamboo(options.data / "spot-bamboo", NEED) if options.data is not None else None
    extra = {"shipped, starts of 390 s": slow}
    if real is not None:
        extra["shipped, bamboo traces (10.7 h)"] = simulate(real, NEED, SHIPPED).figures(NEED)
    circumstances = {
        "data": "generated market" + (", spot-bamboo" if real is not None else ""),
        "seeds": list(SEEDS[: len(markets)]),
        "correlation_within": round(within, 3),
        "correlation_across": round(across, 3),
        "requests_during_notices": sent,
        **context,
    }
    return Result(
        figures, BOUNDS, circumstances, (_table({**rows, **extra}),), (_plot(rows),), NOTES
    )


NOTES = (
    (
        "That the zone cap yields where no other zone is open was found on seeds 1 and 2; seeds "
        "3 and 4 were not looked at before."
    ),
    (
        "`availability` is 1 - the mean shortfall of the capacity required; `cost_at_995` is "
        "read off the frontier without the solver."
    ),
    (
        "The solver buys on-demand capacity beforehand against bad scenarios; here the online "
        "rule alone is no worse."
    ),
    "The bamboo traces overlap for half a day in three zones only; they are reported, not judged.",
)


def _mean(
    markets: list[Market], knobs: SpotPolicy, solver: SolverSettings | None, start_ticks: int = 1
) -> dict[str, float]:
    # The solver runs a thousand times for each market: one market tells enough.
    used = markets[:1] if solver is not None else markets
    found = [simulate(market, NEED, knobs, start_ticks, solver).figures(NEED) for market in used]
    return {name: statistics.fmean(one[name] for one in found) for name in found[0]}


def _cost_at(availability: float, rows: dict[str, dict[str, float]]) -> float:
    points = sorted(
        (rows[name]["availability"], rows[name]["cost_vs_on_demand"]) for name in FRONTIER
    )
    shares, costs = zip(*points, strict=True)
    return float(np.interp(availability, shares, costs))


def _table(rows: dict[str, dict[str, float]]) -> Table:
    columns = tuple(next(iter(rows.values())))
    return Table(
        "Four instances needed",
        ("rule", *columns),
        tuple((name, *row.values()) for name, row in rows.items()),
    )


def _plot(rows: dict[str, dict[str, float]]) -> Plot:
    series = {
        name: ([row["cost_vs_on_demand"]] * 2, [row["availability"], row["availability"] + 2e-4])
        for name, row in rows.items()
    }
    return Plot("Availability against cost", "cost, share of on demand", "availability", series)
