"""The price of a spot place: followed by time and not by looks, unmoved by one odd price, with the
course of the day and a quantile.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from penstock.scaler.spot.offerings import Offering, Offerings
from penstock.scaler.spot.placement_rule import SpotPolicy, place
from penstock.scaler.spot.price_forecast import HORIZON_S, LEAST_RESIDUALS, PriceForecast

HOUR, DAY = 3_600.0, 86_400.0
NOW = 1_800_000_000.0 // DAY * DAY


def fed(prices: list[float], step_s: float = 300.0) -> tuple[PriceForecast, float]:
    forecast = PriceForecast(0.3)
    for number, price in enumerate(prices):
        forecast.saw(price, NOW + number * step_s)
    return forecast, NOW + (len(prices) - 1) * step_s


def test_the_first_price_is_believed_and_one_odd_one_is_not() -> None:
    forecast, now = fed([0.42] * 50)
    assert forecast.expected(now) == pytest.approx(0.42)
    forecast.saw(4.2, now + 300)
    assert forecast.expected(now + 300) < 0.45


def test_a_price_that_stays_is_followed() -> None:
    forecast, now = fed([0.3] * 50 + [0.6] * 60)
    assert forecast.expected(now) == pytest.approx(0.6, rel=0.1)


def test_time_makes_it_forget_and_not_the_number_of_looks() -> None:
    seldom, now = fed([0.3] * 20 + [0.33] * 6, 600.0)
    often, later = fed([0.3] * 2_400 + [0.33] * 720, 5.0)
    assert seldom.expected(now) == pytest.approx(often.expected(later), rel=0.03)


def test_the_course_of_the_day_is_foreseen() -> None:
    def price(hour: float) -> float:
        return 0.5 if 9 <= hour % 24 < 17 else 0.3

    forecast = PriceForecast(0.3)
    missed = {"ours": 0.0, "mean": 0.0}
    mean = math.log(0.3)
    for number in range(14 * 24 * 6):
        now, hour = NOW + number * 600.0, number / 6
        forecast.saw(price(hour), now)
        mean += 0.1 * (math.log(price(hour)) - mean)
        if hour > 7 * 24:
            later = price(hour + HORIZON_S / HOUR)
            missed["ours"] += abs(forecast.expected(now) - later)
            missed["mean"] += abs(math.exp(mean) - later)
    assert missed["ours"] < 0.8 * missed["mean"]


def test_the_quantile_covers_what_it_says_an_hour_ahead() -> None:
    rng = np.random.default_rng(5)
    course, log = [], 0.0
    for noise in rng.standard_normal(12_000):
        log = 0.97 * log + 0.05 * noise
        course.append(0.3 * math.exp(log))
    forecast, below = PriceForecast(0.3), []
    for number, price in enumerate(course):
        now = NOW + number * 300.0
        forecast.saw(price, now)
        if number > 3_000 and number + 12 < len(course):
            below.append(course[number + 12] <= forecast.quantile(0.9, now))
    assert np.mean(below) == pytest.approx(0.9, abs=0.02)


def test_before_much_was_missed_the_margin_is_a_wide_one() -> None:
    forecast, now = fed([0.3] * 5)
    assert forecast.quantile(0.1, now) < 0.25 < 0.3 < 0.37 < forecast.quantile(0.9, now)
    assert LEAST_RESIDUALS > 5


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_what_is_no_price_says_nothing(bad: float) -> None:
    forecast, now = fed([0.3] * 5)
    forecast.saw(bad, now + 300)
    assert forecast.expected(now + 300) == pytest.approx(0.3)


def test_a_price_of_the_past_says_nothing() -> None:
    forecast, now = fed([0.3] * 5)
    forecast.saw(0.9, now - 60)
    assert forecast.expected(now) == pytest.approx(0.3)


def test_it_goes_on_where_it_was() -> None:
    forecast, now = fed([0.3 + 0.1 * (number % 7) for number in range(2_000)])
    again = PriceForecast(0.3)
    again.state = forecast.state
    assert again.expected(now) == pytest.approx(forecast.expected(now))
    assert again.quantile(0.9, now) == pytest.approx(forecast.quantile(0.9, now))


def test_a_place_that_may_cost_more_than_on_demand_is_not_used() -> None:
    zones = Offerings([Offering("a1", "a"), Offering("b1", "b")])
    zones.priced("a1", 0.9, NOW)
    zones.priced("b1", 0.5, NOW)
    assert zones.by_name["a1"].price < 1.0 < zones.by_name["a1"].price_high
    assert set(place(3, {}, zones, SpotPolicy(), NOW).launch) == {"b1"}
    assert set(place(3, {}, zones, SpotPolicy(price_most=0.4), NOW).launch) == set()
