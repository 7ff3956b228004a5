"""Spot instances: how much of the needed capacity is there, at which share of the on-demand cost,
and whether a request is lost.

The market is simulated (`spot_market.py`): nine zones in three regions over 45.5 days in ticks of
195 s, capacity that correlates 0.43 within and 0.14 across regions, heavy-tailed lives of machines,
spot at 0.3 of the on-demand price. Four instances are needed, a start takes a tick, and no notice
is used. The placement rule is the code that serves, and learns only from its own launches and
losses. `lost_requests` is measured on real processes: instances are given termination notices
during load, and are replaced, drained and stopped.
"""

from __future__ import annotations

import statistics

import numpy as np
from penstock.bench.harness.options import Options
from penstock.bench.harness.report import Bound, Plot, Result, Table
from penstock.bench.spot import notices
from penstock.scaler.spot.placement_rule import SpotPolicy
from penstock.scaler.spot.solver import SolverSettings
from penstock.simulation.spot_market import Market, bamboo_market, correlations, generate_market
from penstock.simulation.spot_run import simulate

NEED = 4
SEEDS = (1, 2, 3, 4)
DAYS, QUICK_DAYS = 45.5, 4.0
AVAILABILITY = 0.995
DEFAULT = SpotPolicy()
SHIPPED = "shipped: one extra, fall-back"
RULES: dict[str, tuple[SpotPolicy, SolverSettings | None]] = {
    SHIPPED: (DEFAULT, None),
    "no extra": (SpotPolicy(overprovision=0), None),
    "no extra, fall-back after 195 s": (SpotPolicy(overprovision=0, on_demand_delay_s=195.0), None),
    "no extra, fall-back after 600 s": (SpotPolicy(overprovision=0, on_demand_delay_s=600.0), None),
    "two extra": (SpotPolicy(overprovision=2), None),
    "one extra, one always on demand": (SpotPolicy(overprovision=1, on_demand_base=1), None),
    "spot only": (SpotPolicy(overprovision=0, on_demand_delay_s=1e12), None),
    "solver": (DEFAULT, SolverSettings()),
}
FRONTIER = (
    "spot only",
    "no extra, fall-back after 600 s",
    "no extra, fall-back after 195 s",
    "no extra",
    SHIPPED,
)

BOUNDS = {
    "availability": Bound(">=", AVAILABILITY),
    "cost_vs_on_demand": Bound("<=", 0.40),
    "lost_requests": Bound("<=", 0),
}
NOTES = (
    (
        "That the zone limit yields where no other zone is open was found on seeds 1 and 2; seeds "
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


def run(options: Options) -> Result:
    seeds = SEEDS[:1] if options.quick else SEEDS
    markets = [generate_market(seed, QUICK_DAYS if options.quick else DAYS) for seed in seeds]
    rows = {name: _mean(markets, policy, solver) for name, (policy, solver) in RULES.items()}
    slow = {"shipped, starts of 390 s": _mean(markets, DEFAULT, None, start_ticks=2)}
    traces = _on_traces(options)
    loss = notices.measure(options)
    figures: dict[str, float] = {
        name: rows[SHIPPED][name] for name in ("availability", "full_capacity", "cost_vs_on_demand")
    }
    figures["cost_at_995"] = _cost_at(AVAILABILITY, rows)
    if loss.requests:
        figures["lost_requests"] = loss.lost
    pairs = [correlations(market) for market in markets]
    context = {
        "data": "generated market" + (", spot-bamboo" if traces else ""),
        "seeds": list(seeds),
        "correlation_within": round(statistics.fmean(within for within, _ in pairs), 3),
        "correlation_across": round(statistics.fmean(across for _, across in pairs), 3),
        "requests_during_notices": loss.requests,
        **loss.context,
    }
    table = _table({**rows, **slow, **traces})
    return Result(figures, BOUNDS, context, (table,), (_plot(rows),), NOTES)


def _on_traces(options: Options) -> dict[str, dict[str, float]]:
    """Figures on the published traces; none where the data folder does not hold them."""
    folder = options.folder("spot-bamboo")
    if folder is None:
        return {}
    market = bamboo_market(folder, NEED)
    if market is None:
        return {}
    return {"shipped, bamboo traces (10.7 h)": simulate(market, NEED, DEFAULT).figures(NEED)}


def _mean(
    markets: list[Market],
    policy: SpotPolicy,
    solver: SolverSettings | None,
    start_ticks: int = 1,
) -> dict[str, float]:
    # The solver runs a thousand times for each market, so one market has to do.
    used = markets[:1] if solver is not None else markets
    rows = [simulate(market, NEED, policy, start_ticks, solver).figures(NEED) for market in used]
    return {name: statistics.fmean(row[name] for row in rows) for name in rows[0]}


def _cost_at(availability: float, rows: dict[str, dict[str, float]]) -> float:
    """The cost on the frontier at an availability, interpolated."""
    points = sorted(
        (rows[name]["availability"], rows[name]["cost_vs_on_demand"]) for name in FRONTIER
    )
    availabilities, costs = zip(*points, strict=True)
    return float(np.interp(availability, availabilities, costs))


def _table(rows: dict[str, dict[str, float]]) -> Table:
    columns = tuple(next(iter(rows.values())))
    return Table(
        "Four instances needed",
        ("rule", *columns),
        tuple((name, *row.values()) for name, row in rows.items()),
    )


def _plot(rows: dict[str, dict[str, float]]) -> Plot:
    """Each rule as a short upright mark."""
    series = {
        name: ([row["cost_vs_on_demand"]] * 2, [row["availability"], row["availability"] + 2e-4])
        for name, row in rows.items()
    }
    return Plot("Availability against cost", "cost, share of on demand", "availability", series)
