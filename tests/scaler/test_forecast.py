"""Forecasts: quantiles that cover what they say, experts that lose their say, and histories too
short or too wild.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from penstock.scaler.forecast.experts import DailyProfile, FittedExperts
from penstock.scaler.forecast.features import WINDOW, rows
from penstock.scaler.forecast.forecaster import EXPERTS, LEVELS, OUT, Forecaster
from penstock.scaler.forecast.scoring import Residuals
from sklearn.ensemble import ExtraTreesRegressor, RandomForestRegressor
from sklearn.linear_model import Ridge

CLOCK = (1_700_000_000.0, 1800.0)


def daily(days: int, seed: int = 1) -> np.ndarray:
    """Half-hour samples with a daily course and counting noise."""
    rng = np.random.default_rng(seed)
    steps = np.arange(days * 48)
    return rng.poisson(100.0 * (1.2 + np.sin(2 * np.pi * steps / 48))).astype(float)


def fed(work: np.ndarray, ahead: int = 1, fit: bool = True) -> tuple[Forecaster, np.ndarray]:
    forecaster, found = Forecaster(ahead, CLOCK), []
    for value in work:
        found.append(forecaster.observe(float(value)).quantiles)
        if fit and forecaster.fit_due and forecaster.seen % 480 == 0:
            forecaster.adopt(forecaster.train())
    return forecaster, np.array(found)


def test_quantiles_cover_what_they_say() -> None:
    work = daily(24)
    for ahead in (1, 2):
        forecaster, found = fed(work, ahead)
        late = np.arange(10 * 48, len(work) - ahead)
        for place, level in enumerate(LEVELS):
            share = (work[late + ahead] <= found[late, place]).mean()
            assert abs(share - level) < 0.04, (ahead, level)
        assert abs(forecaster.covered.share(LEVELS.index(0.95)) - 0.95) < 0.03
        assert (np.diff(found[late], axis=1) >= 0).all()


def test_the_course_of_the_day_is_foreseen() -> None:
    work = daily(24)
    _, found = fed(work)
    late = np.arange(10 * 48, len(work) - 1)
    median = found[late, LEVELS.index(0.5)]
    ours, naive = np.abs(work[late + 1] - median).mean(), np.abs(np.diff(work))[late].mean()
    assert ours < 0.75 * naive


def test_before_anything_is_known_the_maximum_stands() -> None:
    forecaster = Forecaster(1, CLOCK)
    forecast = forecaster.observe(7.0)
    assert not forecast.ready and forecast.fallen_back
    assert forecast.at(LEVELS, 0.95) == 7.0
    for _ in range(60):
        forecast = forecaster.observe(7.0)
    assert forecast.ready and forecast.at(LEVELS, 0.95) == pytest.approx(7.0)


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_a_sample_that_is_no_amount_is_refused_and_changes_nothing(bad: float) -> None:
    forecaster, _ = fed(daily(2), fit=False)
    seen = forecaster.seen
    with pytest.raises(ValueError, match="finite"):
        forecaster.observe(bad)
    assert forecaster.seen == seen


def test_the_learned_experts_are_extra_trees_a_random_forest_and_ridge_and_each_foresees() -> None:
    work = daily(6)
    forecaster, _ = fed(work, fit=False)
    learned = forecaster.train()
    assert [type(one) for one in (*learned.trees, learned.ridge)] == [
        ExtraTreesRegressor,
        RandomForestRegressor,
        Ridge,
    ]
    forecaster.adopt(learned)
    later = daily(2, seed=9)
    missed: dict[int, list[float]] = {0: [], 1: [], 2: []}
    flat = []
    for now, then in itertools.pairwise(later):
        forecaster.observe(float(now))
        row = learned.predict(forecaster._row(), forecaster._level)
        for expert, value in enumerate(row):
            missed[expert].append(abs(value - float(then)))
        flat.append(abs(float(work.mean()) - float(then)))
    assert all(np.mean(missed[expert]) < 0.5 * np.mean(flat) for expert in missed)


def test_an_expert_that_runs_away_is_cut_and_put_out() -> None:
    work = daily(6)
    forecaster, _ = fed(work, fit=False)
    forecaster.adopt(forecaster.train())

    class Wild(FittedExperts):
        def predict(self, row: np.ndarray, level: float) -> list[float]:
            return [1e9, 100.0, 100.0]

    forecaster.adopt(Wild(*vars(forecaster.train()).values()))
    wild = EXPERTS.index("extra trees")
    for value in daily(2, seed=9)[: LEVELS.index(0.95) + 40]:
        forecast = forecaster.observe(float(value))
        assert forecast.quantiles.max() < 5 * work.max()
        assert EXPERTS[wild] not in forecast.weights
    assert OUT > 40


def test_a_forecast_that_loses_to_the_reactive_rules_falls_back_and_returns() -> None:
    rng = np.random.default_rng(4)
    forecaster, _ = fed(daily(8), fit=False)
    made = forecaster._made[-1]
    assert made is not None and not forecaster.last.fallen_back
    # What was forecast is made bad after the fact: the trust rule sees only forecasts and what came
    # of them.
    for value in rng.poisson(100.0, 120):
        forecaster._made[-1] = replace(made, mixed=np.full(len(LEVELS), 5_000.0))
        forecast = forecaster.observe(float(value))
    assert forecast.fallen_back
    assert forecast.at(LEVELS, 0.95) == pytest.approx(float(forecast.reactive[LEVELS.index(0.95)]))
    for value in rng.poisson(100.0, 2_500):
        made = forecaster._made[-1]
        assert made is not None
        forecaster._made[-1] = replace(
            made, mixed=np.full(len(LEVELS), float(np.quantile(rng.poisson(100.0, 200), 0.95)))
        )
        forecast = forecaster.observe(float(value))
        if not forecast.fallen_back:
            break
    assert not forecast.fallen_back


def test_demand_that_begins_after_silence_is_not_taken_for_endless_growth() -> None:
    forecaster = Forecaster(1, (0.0, 60.0))
    for work in [0.0] * 40 + [600.0] + [0.0] * 20 + [600.0, 500.0]:
        forecast = forecaster.observe(work)
        assert forecast.at(LEVELS, 0.99) <= 4.0 * 600.0 + 1e-6


def test_zero_demand_is_forecast_as_zero() -> None:
    forecaster, found = fed(np.zeros(200))
    assert found[-1].max() == 0.0
    assert not np.isnan(forecaster.last.quantiles).any()


def test_residuals_are_a_ring_in_order() -> None:
    rng = np.random.default_rng(2)
    ring, values = Residuals(50), rng.standard_normal(220)
    for value in values:
        ring.add(float(value))
    kept = np.sort(values[-50:])
    assert (ring.dump() == values[-50:]).all()
    levels = np.array([0.0, 0.5, 0.9, 1.0])
    found = ring.quantiles(levels)
    assert found[0] == kept[0] and found[-1] == kept[-1]
    assert kept[24] <= found[1] <= kept[26]


def test_features_look_at_nothing_that_is_not_known_yet() -> None:
    work = daily(16)
    level = np.maximum.accumulate(work)
    at = np.arange(WINDOW, len(work) - 60)
    before = rows(work, level, at, 1, CLOCK)
    changed, cut = work.copy(), len(work) - 60
    changed[cut:] = 1e6
    known = at < cut
    assert (rows(changed, level, at, 1, CLOCK)[known] == before[known]).all()


def test_a_profile_knows_no_ratio_before_it_has_seen_both_slots() -> None:
    profile = DailyProfile(48)
    assert np.isnan(profile.ratio(10, 1, 0.0))
    profile.usual[:] = 10.0
    profile.usual[11] = 100.0
    assert profile.ratio(10, 1, 0.0) == 2.5
