"""Predictive scaling: capacity paid for in vain at equal shortfall, against reactive rules; in
virtual time, with the code that serves.

Capacity for a step is chosen `lead` steps before it. Shortfall: share of steps with more work than
capacity. Over-provision: unused capacity over the work. Each rule's parameter (target utilisation,
or quantile level) is swept and its lower envelope read at shortfalls of 10, 5 and 2 %. *Best
reactive* is the maximum of the last K steps over a target, K and target both chosen in hindsight on
the evaluated steps, an unfair advantage. The scaler's side is its final decision: forecast
quantile, trust rule, the maximum over a hold of two steps, reactive floor. Coverage is that of the
forecast quantile before hold and floor. Evaluation starts after 7 days (taxi 30 days, Azure 15
minutes).
"""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass

import numpy as np
from penstock.bench.harness.options import Options
from penstock.bench.harness.report import Bound, Plot, Result, Table
from penstock.bench.scaling.queue import latency_stddev_cut, service_times
from penstock.bench.scaling.reactive_rules import (
    HOLDS,
    TARGETS,
    Array,
    Curve,
    clairvoyant,
    held_maximum,
    hpa,
    kpa,
)
from penstock.bench.scaling.series import Series, load
from penstock.scaler.decide.decision import DecisionState, PoolState, ScalingPolicy, decide
from penstock.scaler.forecast.forecaster import Forecast, Forecaster

LEVELS = tuple(
    float(level)
    for level in np.concatenate([np.linspace(0.5, 0.88, 20), np.linspace(0.89, 0.995, 43)])
)
COVERED_LEVELS = (0.9, 0.95, 0.98, 0.99)
MAIN_LEVEL = 0.95
SHORTFALLS = (0.10, 0.05, 0.02)
LEADS = (1, 2)
NAB = ("elb", "amzn", "taxi")
UNBOUNDED = ScalingPolicy(max_instances=10**9)

BOUNDS = {
    "over_provision_cut_vs_hpa": Bound(">=", 0.55),
    "over_provision_cut_vs_best_reactive": Bound(">=", 0.36),
    "all_five_cut_vs_hpa": Bound(">=", 0.40),
    "worst_cell_vs_best_reactive": Bound(">=", -0.05),
    "coverage_error": Bound("<=", 0.005),
    "coverage_error_max": Bound("<=", 0.015),
    "cost_cut_vs_static": Bound(">=", 0.25),
    "tick_ms": Bound("<=", 50),
}
NOTES = (
    (
        "Growing sharpness of the weights and the trust rule's thresholds were chosen with these "
        "series in view: no series here is untouched."
    ),
    (
        "The random forest took the place of a second, coarser ensemble of extra trees; its "
        "settings are the textbook's and were run once."
    ),
    (
        "Azure's hour gives about 255 evaluated steps, so 2 % are five steps: its cells count in "
        "`all_five` and `worst_cell` only."
    ),
    (
        "`cost_cut_vs_static`: mean capacity at the 0.95 quantile against a fleet sized for the "
        "peak of the evaluated steps, over all cells."
    ),
    (
        "`tick_ms`: 99th percentile of one sample taken, forecast and decided on; learned "
        "experts are fitted beside it, in a thread."
    ),
    (
        "`latency_stddev_cut` has no bound: latencies of one M/G/c queue at equal mean cost, "
        "against the maximum of six steps."
    ),
)


@dataclass(frozen=True)
class Replay:
    """Forecasts after each sample of a series, for one lead.

    Args:
        quantiles: of the weighted forecast, samples x levels.
        in_force: the same, or of the reactive rules where they decided.
        fallen_back: share of the evaluated samples at which the reactive rules decided.
        tick_ms: 99th percentile of the time for one sample.
    """

    quantiles: Array
    in_force: Array
    fallen_back: float
    tick_ms: float


@dataclass(frozen=True)
class Cell:
    """One series at one lead.

    Args:
        rules: over-provision of each rule at each of SHORTFALLS.
        coverage: share of samples at or below the quantile, for each of COVERED_LEVELS.
    """

    series: str
    lead: int
    rules: dict[str, tuple[float, ...]]
    coverage: tuple[float, ...]
    static_cut: float
    latency_cut: float

    def cuts(self, rule: str) -> list[float]:
        """Return how much less the scaler over-provisions than a rule, at each of SHORTFALLS."""
        pairs = zip(self.rules["ours"], self.rules[rule], strict=True)
        return [1.0 - ours / theirs if math.isfinite(theirs) else 1.0 for ours, theirs in pairs]


def run(options: Options) -> Result:
    origins, all_series = load(options)
    service = service_times(options)
    cells: list[Cell] = []
    ticks_ms: list[float] = []
    fallen_back: dict[str, float] = {}
    for series in all_series:
        replays = {lead: replay(series, lead) for lead in (*LEADS, LEADS[-1] + 1)}
        ticks_ms += [one.tick_ms for one in replays.values()]
        for lead in LEADS:
            fallen_back[f"{series.name} {lead}"] = round(replays[lead].fallen_back, 4)
            cells.append(_cell(series, lead, replays, service))
    context = {
        "data": origins,
        "series": {series.name: len(series.work) for series in all_series},
        "fallen_back_share": fallen_back,
    }
    figures = {**_figures(cells), "tick_ms": max(ticks_ms)}
    tables = (_table(cells), _coverage_table(_nab(cells)))
    return Result(figures, BOUNDS, context, tables, (_plot(cells),), NOTES)


def _nab(cells: list[Cell]) -> list[Cell]:
    return [cell for cell in cells if cell.series in NAB]


def _figures(cells: list[Cell]) -> dict[str, float]:
    nab = _nab(cells)
    errors = [
        abs(share - level)
        for cell in nab
        for share, level in zip(cell.coverage, COVERED_LEVELS, strict=True)
    ]
    return {
        "over_provision_cut_vs_hpa": _mean_cut(nab, "HPA"),
        "over_provision_cut_vs_best_reactive": _mean_cut(nab, "best reactive"),
        "all_five_cut_vs_hpa": _mean_cut(cells, "HPA"),
        "all_five_cut_vs_best_reactive": _mean_cut(cells, "best reactive"),
        "worst_cell_vs_best_reactive": min(
            cut for cell in cells for cut in cell.cuts("best reactive")
        ),
        "coverage_error": statistics.fmean(errors),
        "coverage_error_max": max(errors),
        "cost_cut_vs_static": statistics.fmean(cell.static_cut for cell in cells),
        "latency_stddev_cut": statistics.fmean(cell.latency_cut for cell in cells),
    }


def replay(series: Series, lead: int) -> Replay:
    """Feed a series to a forecaster as the service does, and fit its experts when that is due."""
    forecaster = Forecaster(lead, series.start_s, series.step_s, LEVELS)
    forecasts: list[Forecast] = []
    ticks_s: list[float] = []
    state = DecisionState()
    for number, work in enumerate(series.work):
        began_s = time.perf_counter()
        forecast = forecaster.observe(float(work))
        pool = PoolState(
            current=1,
            ready=1,
            capacity=1.0,
            demand=float(work),
            backlog=0.0,
            forecast=forecast.at(LEVELS, MAIN_LEVEL),
            measured_at_s=number,
        )
        state = decide(pool, UNBOUNDED, state, number).state
        ticks_s.append(time.perf_counter() - began_s)
        forecasts.append(forecast)
        if forecaster.fit_due:
            forecaster.adopt(forecaster.train())
    evaluated = forecasts[series.start :]
    return Replay(
        np.array([one.quantiles for one in forecasts]),
        np.array([one.reactive if one.fallen_back else one.quantiles for one in forecasts]),
        sum(one.fallen_back for one in evaluated) / len(evaluated),
        float(np.quantile(ticks_s, 0.99)) * 1e3,
    )


def _cell(series: Series, lead: int, replays: dict[int, Replay], service: Array) -> Cell:
    steps = np.arange(series.start, len(series.work))
    evaluated, chosen_at = series.work[steps], steps - lead
    in_force = np.maximum(replays[lead].in_force, replays[lead + 1].in_force)
    final = np.maximum(in_force, series.work[:, None])[chosen_at]
    main = final[:, _level_index(MAIN_LEVEL)]
    reactive = held_maximum(series.work, 6, 1.0)[chosen_at]
    quantiles = replays[lead].quantiles[chosen_at]
    coverage = [
        float((evaluated <= quantiles[:, _level_index(level)]).mean()) for level in COVERED_LEVELS
    ]
    return Cell(
        series.name,
        lead,
        _over_provision(series, lead, final),
        tuple(coverage),
        static_cut=1.0 - float(main.mean()) / float(evaluated.max()),
        latency_cut=latency_stddev_cut(evaluated, main, reactive, service),
    )


def _over_provision(series: Series, lead: int, final: Array) -> dict[str, tuple[float, ...]]:
    """Over-provision of each rule at each of SHORTFALLS.

    Args:
        final: the scaler's capacity, evaluated steps x levels.
    """
    work, step_s = series.work, series.step_s
    steps = np.arange(series.start, len(work))
    evaluated, chosen_at = work[steps], steps - lead
    ours, by_hpa, by_kpa = Curve(), Curve(), Curve()
    by_hold = {hold: Curve() for hold in HOLDS}
    for index in range(len(LEVELS)):
        ours.add(evaluated, final[:, index])
    for target in map(float, TARGETS):
        by_hpa.add(evaluated, hpa(work, step_s, target)[chosen_at])
        by_kpa.add(evaluated, kpa(work, step_s, target)[chosen_at])
        for hold, curve in by_hold.items():
            curve.add(evaluated, held_maximum(work, hold, target)[chosen_at])
    best = [min(curve.at(share) for curve in by_hold.values()) for share in SHORTFALLS]
    return {
        "HPA": tuple(by_hpa.at(share) for share in SHORTFALLS),
        "KPA": tuple(by_kpa.at(share) for share in SHORTFALLS),
        "best reactive": tuple(best),
        "ours": tuple(ours.at(share) for share in SHORTFALLS),
        "clairvoyant, hold 2": (clairvoyant(evaluated, 2),) * len(SHORTFALLS),
    }


def _level_index(level: float) -> int:
    return int(np.argmin(np.abs(np.array(LEVELS) - level)))


def _mean_cut(cells: list[Cell], rule: str) -> float:
    return statistics.fmean(cut for cell in cells for cut in cell.cuts(rule))


def _table(cells: list[Cell]) -> Table:
    columns = tuple(cells[0].rules)
    rows = tuple(
        (
            f"{cell.series}, {cell.lead}",
            *("/".join(f"{100 * value:.0f}" for value in cell.rules[name]) for name in columns),
            "/".join(f"{100 * cut:.0f}" for cut in cell.cuts("HPA")),
            "/".join(f"{100 * cut:.0f}" for cut in cell.cuts("best reactive")),
        )
        for cell in cells
    )
    heads = ("series, lead", *columns, "cut vs HPA", "cut vs best reactive")
    return Table("Over-provision in % of the work at 10/5/2 % shortfall", heads, rows)


def _coverage_table(cells: list[Cell]) -> Table:
    rows = tuple(
        (f"{cell.series}, {cell.lead}", *(f"{100 * share:.2f}" for share in cell.coverage))
        for cell in cells
    )
    heads = ("series, lead", *(f"{100 * level:.0f} %" for level in COVERED_LEVELS))
    return Table("Share of steps at or below the forecast quantile, in %", heads, rows)


def _plot(cells: list[Cell]) -> Plot:
    places = [float(number) for number in range(len(cells))]
    lines = {
        name: (places, [min(cell.rules[name][1], 6.0) for cell in cells])
        for name in ("HPA", "KPA", "best reactive", "ours")
    }
    return Plot(
        "Over-provision at 5 % shortfall (cut at 6)", "cell, in the table's order", "× work", lines
    )
