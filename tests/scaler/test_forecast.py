"""Forecasts of demand: quantiles whose coverage is their level, experts that are excluded or lose
weight, the fallback to the reactive rules, and histories that are short or irregular.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from penstock.scaler.forecast.experts import EXPERTS, DailyProfile, FittedExperts
from penstock.scaler.forecast.features import WINDOW, DemandHistory, feature_rows
from penstock.scaler.forecast.forecaster import LEVELS, Forecast, Forecaster
from penstock.scaler.forecast.scoring import Residuals, TrustRule
from sklearn.ensemble import ExtraTreesRegressor, RandomForestRegressor
from sklearn.linear_model import Ridge

START_S, STEP_S = 1_700_000_000.0, 1800.0
AT_95 = LEVELS.index(0.95)


def daily(days: int, seed: int = 1) -> np.ndarray:
    """Half-hour samples with a daily course and counting noise."""
    rng = np.random.default_rng(seed)
    steps = np.arange(days * 48)
    return rng.poisson(100.0 * (1.2 + np.sin(2 * np.pi * steps / 48))).astype(float)


def forecaster_after(
    work: np.ndarray, ahead: int = 1, fit: bool = True
) -> tuple[Forecaster, np.ndarray]:
    """A forecaster that has observed the work, and its quantiles after each sample."""
    forecaster, quantiles = Forecaster(ahead, START_S, STEP_S), []
    for value in work:
        quantiles.append(forecaster.observe(float(value)).quantiles)
        if fit and forecaster.fit_due and forecaster.seen % 480 == 0:
            forecaster.adopt(forecaster.train())
    return forecaster, np.array(quantiles)


@pytest.mark.parametrize("ahead", [1, 2])
def test_the_share_of_samples_below_a_quantile_is_its_level(ahead: int) -> None:
    work = daily(24)
    forecaster, quantiles = forecaster_after(work, ahead)
    late = np.arange(10 * 48, len(work) - ahead)
    for index, level in enumerate(LEVELS):
        share = (work[late + ahead] <= quantiles[late, index]).mean()
        assert abs(share - level) < 0.04, level
    assert abs(forecaster.coverage.share(AT_95) - 0.95) < 0.03
    assert (np.diff(quantiles[late], axis=1) >= 0).all()


def test_the_course_of_the_day_is_forecast() -> None:
    work = daily(24)
    _, quantiles = forecaster_after(work)
    late = np.arange(10 * 48, len(work) - 1)
    median = quantiles[late, LEVELS.index(0.5)]
    error = np.abs(work[late + 1] - median).mean()
    naive_error = np.abs(np.diff(work))[late].mean()
    assert error < 0.75 * naive_error


def test_with_too_little_history_the_forecast_is_the_maximum() -> None:
    forecaster = Forecaster(1, START_S, STEP_S)
    forecast = forecaster.observe(7.0)
    assert not forecast.ready
    assert forecast.fallen_back
    assert forecast.at(LEVELS, 0.95) == 7.0
    for _ in range(60):
        forecast = forecaster.observe(7.0)
    assert forecast.ready
    assert forecast.at(LEVELS, 0.95) == pytest.approx(7.0)


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_a_sample_that_is_no_amount_is_refused_and_changes_nothing(bad: float) -> None:
    forecaster, _ = forecaster_after(daily(2), fit=False)
    seen = forecaster.seen
    with pytest.raises(ValueError, match="finite"):
        forecaster.observe(bad)
    assert forecaster.seen == seen


def test_the_fitted_experts_are_extra_trees_a_random_forest_and_ridge() -> None:
    forecaster, _ = forecaster_after(daily(6), fit=False)
    fitted = forecaster.train()
    kinds = [type(one) for one in (*fitted.trees, fitted.ridge)]
    assert kinds == [ExtraTreesRegressor, RandomForestRegressor, Ridge]


def test_each_fitted_expert_forecasts_better_than_the_mean() -> None:
    work, later = daily(6), daily(2, seed=9)
    forecaster, _ = forecaster_after(work, fit=False)
    fitted = forecaster.train()
    forecaster.adopt(fitted)
    errors = []
    for value, following in itertools.pairwise(later):
        forecaster.observe(float(value))
        history = forecaster.history
        row = feature_rows(history, np.array([len(history.work) - 1]), 1)
        points = fitted.predict(row, float(history.baseline[-1]))
        errors.append([abs(point - following) for point in points])
    mean_error = np.abs(work.mean() - later[1:]).mean()
    assert (np.mean(errors, axis=0) < 0.5 * mean_error).all()


class WildExperts(FittedExperts):
    """The first expert's forecast is out of all bounds."""

    def predict(self, row: np.ndarray, baseline: float) -> list[float]:
        return [1e9, 100.0, 100.0]


def test_an_expert_whose_forecast_is_out_of_bounds_is_cut_and_excluded() -> None:
    work = daily(6)
    forecaster, _ = forecaster_after(work, fit=False)
    fitted = forecaster.train()
    assert "extra trees" in EXPERTS
    forecaster.adopt(WildExperts(fitted.trees, fitted.ridge, fitted.centre, fitted.spread))
    for value in daily(2, seed=9)[:43]:
        forecast = forecaster.observe(float(value))
        assert forecast.quantiles.max() < 5 * work.max()
        assert "extra trees" not in forecast.weights


def test_the_reactive_rules_take_over_while_the_forecast_loses_to_them() -> None:
    rng = np.random.default_rng(4)
    trust = TrustRule(np.array(LEVELS), AT_95)
    bad, reactive = np.full(len(LEVELS), 5_000.0), np.full(len(LEVELS), 150.0)
    good = np.quantile(rng.poisson(100.0, 10_000), LEVELS)
    for work in rng.poisson(100.0, 1_000):
        trust.record(float(work), good, reactive)
    assert not trust.has_fallen_back
    for work in rng.poisson(100.0, 120):
        trust.record(float(work), bad, reactive)
    assert trust.has_fallen_back
    for work in rng.poisson(100.0, 2_500):
        trust.record(float(work), good, reactive)
    assert not trust.has_fallen_back


def test_the_reactive_quantiles_are_used_after_a_sudden_rise_until_the_forecast_is_better() -> None:
    rng = np.random.default_rng(4)
    forecaster, _ = forecaster_after(rng.poisson(100.0, 400), fit=False)
    assert not forecaster.last.fallen_back
    for work in rng.poisson(400.0, 24):
        forecast = forecaster.observe(float(work))
    assert forecast.fallen_back
    assert forecast.at(LEVELS, 0.95) == pytest.approx(float(forecast.reactive[AT_95]))
    for work in rng.poisson(100.0, 1_500):
        forecast = forecaster.observe(float(work))
    assert not forecast.fallen_back
    assert forecast.at(LEVELS, 0.95) == pytest.approx(float(forecast.quantiles[AT_95]))


@pytest.mark.parametrize(("fallen_back", "quantile"), [(False, 2.0), (True, 3.0)])
def test_after_the_fallback_a_forecast_gives_the_reactive_quantiles(
    fallen_back: bool, quantile: float
) -> None:
    weighted, reactive = np.full(len(LEVELS), 2.0), np.full(len(LEVELS), 3.0)
    forecast = Forecast(weighted, reactive, {}, fallen_back, ready=True)
    assert forecast.at(LEVELS, 0.95) == quantile


def test_demand_that_begins_after_silence_is_not_taken_for_endless_growth() -> None:
    forecaster = Forecaster(1, 0.0, 60.0)
    for work in [0.0] * 40 + [600.0] + [0.0] * 20 + [600.0, 500.0]:
        forecast = forecaster.observe(work)
        assert forecast.at(LEVELS, 0.99) <= 4.0 * 600.0 + 1e-6


def test_zero_demand_is_forecast_as_zero() -> None:
    forecaster, quantiles = forecaster_after(np.zeros(200))
    assert quantiles[-1].max() == 0.0
    assert not np.isnan(forecaster.last.quantiles).any()


def test_the_last_residuals_are_kept_in_order_of_time_and_give_quantiles() -> None:
    values = np.random.default_rng(2).standard_normal(220)
    residuals = Residuals(50)
    for value in values:
        residuals.add(float(value))
    assert (residuals.oldest_first() == values[-50:]).all()
    lowest, median, _, highest = residuals.quantiles(np.array([0.0, 0.5, 0.9, 1.0]))
    kept = np.sort(values[-50:])
    assert (lowest, highest) == (kept[0], kept[-1])
    assert kept[24] <= median <= kept[26]


def test_features_do_not_depend_on_samples_that_are_not_known_yet() -> None:
    work = daily(16)
    baseline = np.maximum.accumulate(work)
    cut = len(work) - 60
    at = np.arange(WINDOW, cut)
    changed = work.copy()
    changed[cut:] = 1e6
    before = feature_rows(DemandHistory(work, baseline, START_S, STEP_S), at, 1)
    after = feature_rows(DemandHistory(changed, baseline, START_S, STEP_S), at, 1)
    assert (after == before).all()


def test_a_daily_profile_gives_no_ratio_before_both_slots_are_known() -> None:
    profile = DailyProfile(48)
    assert np.isnan(profile.ratio(10, 1, 0.0))
    profile.values[:] = 10.0
    profile.values[11] = 100.0
    assert profile.ratio(10, 1, 0.0) == 2.5, "ratios are bounded"
