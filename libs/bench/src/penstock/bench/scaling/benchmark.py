"""Predictive scaling: capacity paid for in vain at equal shortfall, against reactive rules; in
virtual time, with the code that serves.

Capacity for a step is chosen `lead` steps before it. Shortfall: share of steps with more work than
capacity. Over-provision: capacity not used, over the work. Each rule's knob (target utilisation, or
quantile) is swept and its lower envelope read at shortfalls of 10, 5 and 2 %. *Best reactive* is
the maximum of the last K steps over a target, K and target both chosen in hindsight on the
evaluated steps, an unfair advantage. The scaler's side is its final decision: forecast quantile,
trust rule, the most of a hold of two steps, reactive floor. Coverage is that of the forecast
quantile before hold and floor. Evaluation starts after 7 days (taxi 30 days, Azure 15 minutes).
"""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass

import numpy as np
from penstock.bench.harness.options import Options
from penstock.bench.harness.report import Bound, Plot, Result, Table
from penstock.bench.scaling.queue import latency_stddev_cut, sizes
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
from penstock.scaler.forecast.forecaster import Forecaster

LEVELS = tuple(
    float(level)
    for level in np.concatenate([np.linspace(0.5, 0.88, 20), np.linspace(0.89, 0.995, 43)])
)
NAMED = (0.9, 0.95, 0.98, 0.99)
SHORTFALLS = (0.10, 0.05, 0.02)
LEADS = (1, 2)
NAB = ("elb", "amzn", "taxi")

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


@dataclass(frozen=True)
class Replay:
    """What the forecaster said after each sample of a series, for one lead."""

    quantiles: Array
    in_force: Array
    fallen_back: float
    tick_ms: float


@dataclass(frozen=True)
class Cell:
    """One series at one lead: over-provision of each rule by shortfall."""

    series: str
    lead: int
    rules: dict[str, tuple[float, ...]]
    coverage: tuple[float, ...]
    static_cut: float
    latency_cut: float

    def cuts(self, against: str) -> list[float]:
        pairs = zip(self.rules["ours"], self.rules[against], strict=True)
        return [1.0 - ours / theirs if math.isfinite(theirs) else 1.0 for ours, theirs in pairs]


def run(options: Options) -> Result:
    names, series = load(options)
    ticks: list[float] = []
    cells: list[Cell] = []
    fallen: dict[str, float] = {}
    service = sizes(options)
    for one in series:
        replays = {lead: replay(one, lead) for lead in (*LEADS, LEADS[-1] + 1)}
        ticks += [found.tick_ms for found in replays.values()]
        fallen |= {f"{one.name} {lead}": round(replays[lead].fallen_back, 4) for lead in LEADS}
        cells += [_cell(one, lead, replays, service) for lead in LEADS]
    nab = [cell for cell in cells if cell.series in NAB]
    errors = [
        abs(share - level)
        for cell in nab
        for share, level in zip(cell.coverage, NAMED, strict=True)
    ]
    figures: dict[str, float] = {
        "over_provision_cut_vs_hpa": _mean(nab, "HPA"),
        "over_provision_cut_vs_best_reactive": _mean(nab, "best reactive"),
        "all_five_cut_vs_hpa": _mean(cells, "HPA"),
        "all_five_cut_vs_best_reactive": _mean(cells, "best reactive"),
        "worst_cell_vs_best_reactive": min(
            cut for cell in cells for cut in cell.cuts("best reactive")
        ),
        "coverage_error": statistics.fmean(errors),
        "coverage_error_max": max(errors),
        "cost_cut_vs_static": statistics.fmean(cell.static_cut for cell in cells),
        "latency_stddev_cut": statistics.fmean(cell.latency_cut for cell in cells),
        "tick_ms": max(ticks),
    }
    context = {
        "data": names,
        "series": {one.name: len(one.work) for one in series},
        "fallen_back_share": fallen,
    }
    return Result(figures, BOUNDS, context, (_table(cells), _coverage(nab)), (_plot(cells),), NOTES)


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


def replay(series: Series, lead: int) -> Replay:
    """Feed a series to a forecaster as the service does; the learned experts are fitted when they
    are due.
    """
    forecaster = Forecaster(lead, (series.began_s, series.step_s), LEVELS)
    quantiles, in_force, ticks, fallen = [], [], [], 0
    memory = DecisionState()
    for number, work in enumerate(series.work):
        began = time.perf_counter()
        forecast = forecaster.observe(float(work))
        wanted = forecast.at(LEVELS, 0.95)
        memory = decide(
            PoolState(1, 1, 1.0, float(work), 0.0, wanted, number),
            ScalingPolicy(most=10**9),
            memory,
            number,
        ).memory
        ticks.append(time.perf_counter() - began)
        quantiles.append(forecast.quantiles)
        in_force.append(forecast.reactive if forecast.fallen_back else forecast.quantiles)
        fallen += forecast.fallen_back and number >= series.start
        if forecaster.fit_due:
            forecaster.adopt(forecaster.train())
    share = fallen / (len(series.work) - series.start)
    return Replay(
        np.array(quantiles), np.array(in_force), share, float(np.quantile(ticks, 0.99)) * 1e3
    )


def _cell(series: Series, lead: int, replays: dict[int, Replay], service: Array) -> Cell:
    work = series.work
    steps = np.arange(series.start, len(work))
    later = work[steps]
    final = np.maximum(
        np.maximum(replays[lead].in_force, replays[lead + 1].in_force), work[:, None]
    )
    ours, by_hpa, by_kpa = Curve(), Curve(), Curve()
    held = {hold: Curve() for hold in HOLDS}
    for place in range(len(LEVELS)):
        ours.add(later, final[steps - lead, place])
    for target in TARGETS:
        by_hpa.add(later, hpa(work, series.step_s, float(target))[steps - lead])
        by_kpa.add(later, kpa(work, series.step_s, float(target))[steps - lead])
        for hold, curve in held.items():
            curve.add(later, held_maximum(work, hold, float(target))[steps - lead])
    rules = {
        "HPA": tuple(by_hpa.at(share) for share in SHORTFALLS),
        "KPA": tuple(by_kpa.at(share) for share in SHORTFALLS),
        "best reactive": tuple(
            min(curve.at(share) for curve in held.values()) for share in SHORTFALLS
        ),
        "ours": tuple(ours.at(share) for share in SHORTFALLS),
        "clairvoyant, hold 2": (clairvoyant(later, 2),) * len(SHORTFALLS),
    }
    quantiles = replays[lead].quantiles[steps - lead]
    coverage = tuple(
        float((later <= quantiles[:, np.argmin(np.abs(np.array(LEVELS) - level))]).mean())
        for level in NAMED
    )
    chosen = final[steps - lead, np.argmin(np.abs(np.array(LEVELS) - 0.95))]
    reactive = held_maximum(work, 6, 1.0)[steps - lead]
    static = 1.0 - float(chosen.mean()) / float(later.max())
    return Cell(
        series.name,
        lead,
        rules,
        coverage,
        static,
        latency_stddev_cut(later, chosen, reactive, service),
    )


def _mean(cells: list[Cell], against: str) -> float:
    return statistics.fmean(cut for cell in cells for cut in cell.cuts(against))


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


def _coverage(cells: list[Cell]) -> Table:
    rows = tuple(
        (f"{cell.series}, {cell.lead}", *(f"{100 * share:.2f}" for share in cell.coverage))
        for cell in cells
    )
    heads = ("series, lead", *(f"{100 * level:.0f} %" for level in NAMED))
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
