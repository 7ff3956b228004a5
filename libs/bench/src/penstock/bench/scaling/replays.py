"""Forecasts of the serving forecaster, replayed over series in virtual time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from penstock.bench.harness.pool import process_per_core
from penstock.bench.harness.progress import say
from penstock.bench.scaling.reactive_rules import Array
from penstock.bench.scaling.series import Series
from penstock.scaler.decide.decision import DecisionState, PoolState, ScalingPolicy, decide
from penstock.scaler.forecast.forecaster import Forecast, Forecaster

LEVELS = tuple(
    float(level)
    for level in np.concatenate([np.linspace(0.5, 0.88, 20), np.linspace(0.89, 0.995, 43)])
)
MAIN_LEVEL = 0.95
LEADS = (1, 2)
HORIZONS = (*LEADS, LEADS[-1] + 1)
"""Steps ahead that are forecast: each lead, and one more for the hold."""
UNBOUNDED = ScalingPolicy(max_instances=10**9)
Key = tuple[str, int]
"""The series' name and the lead."""


@dataclass(frozen=True)
class Replay:
    """Forecasts after each sample of a series, for one lead.

    Attributes:
        quantiles: of the weighted forecast, samples x levels.
        in_force: the same, or of the reactive rules where they decided.
        fallen_back: share of the evaluated samples at which the reactive rules decided.
        ticks_ms: the time for each sample.
    """

    quantiles: Array
    in_force: Array
    fallen_back: float
    ticks_ms: Sequence[float]


def replayed(all_series: Sequence[Series]) -> dict[Key, Replay]:
    """The forecasts of every series and lead, each replayed by a process of its own."""
    keys = [(series, lead) for series in all_series for lead in HORIZONS]
    longest_first = sorted(keys, key=lambda key: -len(key[0].work))
    with process_per_core() as pool:
        replays = pool.map(replay, *zip(*longest_first, strict=True))
        return {
            (series.name, lead): found
            for (series, lead), found in zip(longest_first, replays, strict=True)
        }


def replay(series: Series, lead: int) -> Replay:
    """Feed a series to a forecaster as the service does, and fit its experts when that is due."""
    say(f"scaling: {series.name}, {len(series.work)} steps, {lead} ahead")
    forecaster = Forecaster(lead, series.start_s, series.step_s, LEVELS)
    forecasts: list[Forecast] = []
    ticks_s: list[float] = []
    state = DecisionState()
    for number, work in enumerate(series.work):
        began_s = time.process_time()
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
        ticks_s.append(time.process_time() - began_s)
        forecasts.append(forecast)
        if forecaster.fit_due:
            forecaster.adopt(forecaster.train())
    evaluated = forecasts[series.start :]
    return Replay(
        np.array([one.quantiles for one in forecasts]),
        np.array([one.reactive if one.fallen_back else one.quantiles for one in forecasts]),
        sum(one.fallen_back for one in evaluated) / len(evaluated),
        [took_s * 1e3 for took_s in ticks_s],
    )


def level_index(level: float) -> int:
    """The position of a level among LEVELS."""
    return int(np.argmin(np.abs(np.array(LEVELS) - level)))
