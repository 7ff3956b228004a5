"""The forecast of an offering's spot price: it follows lasting changes and not outliers, however
often prices are seen, knows the course of the day, and has quantiles.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from penstock.scaler.spot.offerings import Offering, Offerings
from penstock.scaler.spot.placement_rule import SpotPolicy
from penstock.scaler.spot.price_forecast import HORIZON_S, MIN_RESIDUALS, PriceForecast

from .spot_fakes import place

HOUR, DAY = 3_600.0, 86_400.0
NOW = 1_800_000_000.0 // DAY * DAY


def forecast_after(prices: list[float], step_s: float = 300.0) -> tuple[PriceForecast, float]:
    forecast = PriceForecast(0.3)
    for number, price in enumerate(prices):
        forecast.observe(price, NOW + number * step_s)
    return forecast, NOW + (len(prices) - 1) * step_s


def test_the_first_price_is_taken_and_a_single_outlier_moves_little() -> None:
    forecast, now = forecast_after([0.42] * 50)
    assert forecast.expected(now) == pytest.approx(0.42)
    forecast.observe(4.2, now + 300)
    assert forecast.expected(now + 300) < 0.45


def test_a_price_that_stays_is_followed() -> None:
    forecast, now = forecast_after([0.3] * 50 + [0.6] * 60)
    assert forecast.expected(now) == pytest.approx(0.6, rel=0.1)


def test_a_change_is_followed_at_the_same_pace_however_often_prices_are_seen() -> None:
    seldom, now = forecast_after([0.3] * 20 + [0.33] * 6, 600.0)
    often, later = forecast_after([0.3] * 2_400 + [0.33] * 720, 5.0)
    assert seldom.expected(now) == pytest.approx(often.expected(later), rel=0.03)


def test_the_course_of_the_day_is_forecast() -> None:
    def price(hour: float) -> float:
        return 0.5 if 9 <= hour % 24 < 17 else 0.3

    forecast = PriceForecast(0.3)
    error = {"forecast": 0.0, "mean": 0.0}
    mean = math.log(0.3)
    for number in range(14 * 24 * 6):
        now, hour = NOW + number * 600.0, number / 6
        forecast.observe(price(hour), now)
        mean += 0.1 * (math.log(price(hour)) - mean)
        if hour > 7 * 24:
            later = price(hour + HORIZON_S / HOUR)
            error["forecast"] += abs(forecast.expected(now) - later)
            error["mean"] += abs(math.exp(mean) - later)
    assert error["forecast"] < 0.8 * error["mean"]


def test_the_share_of_prices_below_a_quantile_is_its_level() -> None:
    rng = np.random.default_rng(5)
    course, log = [], 0.0
    for noise in rng.standard_normal(12_000):
        log = 0.97 * log + 0.05 * noise
        course.append(0.3 * math.exp(log))
    forecast, below = PriceForecast(0.3), []
    for number, price in enumerate(course):
        now = NOW + number * 300.0
        forecast.observe(price, now)
        if number > 3_000 and number + 12 < len(course):
            below.append(course[number + 12] <= forecast.quantile(0.9, now))
    assert np.mean(below) == pytest.approx(0.9, abs=0.02)


def test_with_few_residuals_the_quantiles_are_wide_apart() -> None:
    forecast, now = forecast_after([0.3] * 5)
    assert forecast.quantile(0.1, now) < 0.25 < 0.3 < 0.37 < forecast.quantile(0.9, now)
    assert MIN_RESIDUALS > 5


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_a_price_that_is_not_positive_and_finite_is_ignored(bad: float) -> None:
    forecast, now = forecast_after([0.3] * 5)
    forecast.observe(bad, now + 300)
    assert forecast.expected(now + 300) == pytest.approx(0.3)


def test_a_price_of_the_past_is_ignored() -> None:
    forecast, now = forecast_after([0.3] * 5)
    forecast.observe(0.9, now - 60)
    assert forecast.expected(now) == pytest.approx(0.3)


def test_a_restored_forecast_goes_on_where_it_was() -> None:
    forecast, now = forecast_after([0.3 + 0.1 * (number % 7) for number in range(2_000)])
    restored = PriceForecast(0.3)
    restored.state = forecast.state
    assert restored.expected(now) == pytest.approx(forecast.expected(now))
    assert restored.quantile(0.9, now) == pytest.approx(forecast.quantile(0.9, now))


def test_an_offering_that_may_cost_more_than_on_demand_is_not_used() -> None:
    offerings = Offerings([Offering("a1", "a"), Offering("b1", "b")])
    offerings.record_price("a1", 0.9, NOW)
    offerings.record_price("b1", 0.5, NOW)
    dear = offerings.by_name["a1"]
    assert dear.price < 1.0 < dear.high_price
    assert set(place(3, {}, offerings, now_s=NOW).launch) == {"b1"}
    assert not place(3, {}, offerings, SpotPolicy(max_price=0.4), NOW).launch
