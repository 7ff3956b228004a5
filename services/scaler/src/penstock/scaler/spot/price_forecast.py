"""The forecast of one offering's spot price, an hour ahead.

A robust exponential mean, corrected by the usual course of the day; quantiles come from how far
past forecasts missed. Prices are positive and move by shares of themselves, so everything is done
on logarithms. The time is an argument, in Unix seconds; there is no I/O.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from penstock.scaler.forecast.features import DAY_S
from penstock.scaler.forecast.scoring import Residuals

HORIZON_S = 3_600.0
"""How far ahead is forecast: about as long as a machine is kept before it could be moved."""
LEVEL_TIME_S = 1_800.0
"""Time constant of the mean that follows the price."""
SLOW_TIME_S = DAY_S
"""Time constant of the mean that the course of the day is measured from."""
MAX_DEVIATIONS = 3.0
"""A price further from the mean than so many mean deviations counts as if it were so far: a single
outlier moves nothing, a lasting change soon does.
"""
MAX_DEVIATION = 1.0
MIN_DEVIATION = 0.01
SLOTS = 24
SLOT_RATE = 0.3
MIN_DAYS = 3
"""The course of the day counts once each hour was seen on so many days."""
FORECAST_EVERY_S = 900.0
MIN_RESIDUALS = 30
MAX_RESIDUALS = 500
INITIAL_MARGIN = 0.25
"""Logarithmic distance of a quantile from the expected price until enough residuals are known."""


@dataclass(frozen=True)
class PriceState:
    """What is kept over restarts. Field names are keys in the store; prices are logarithms.

    Args:
        level, slow: the mean that follows the price, and that of about a day.
        deviation: mean deviation of the price from the level.
        seen_s: time of the last price; -inf before the first.
        day, days: for each hour, its usual distance from the slow mean and on how many days it
            was seen.
        residuals: price less forecast, oldest first.
    """

    level: float
    slow: float
    deviation: float
    seen_s: float
    day: tuple[float, ...]
    days: tuple[int, ...]
    residuals: tuple[float, ...]


class PriceForecast:
    """Learns from prices as they are seen, at uneven moments.

    Args:
        first: the price expected before any is seen.
    """

    def __init__(self, first: float) -> None:
        self._level = math.log(first)
        self._slow = self._level
        self._deviation = MIN_DEVIATION
        self._seen_s = -math.inf
        self._day = [0.0] * SLOTS
        self._days = [0] * SLOTS
        self._last_slot = -1
        self._residuals = Residuals(MAX_RESIDUALS)
        self._pending: deque[tuple[float, float]] = deque()
        """Forecasts whose hour has not passed: (time they are about, logarithm of the price)."""
        self._margins: dict[float, float] = {}
        """Quantiles of the residuals by level, until a residual is added."""

    def observe(self, price: float, now_s: float) -> None:
        """Take a price. One that is not positive and finite is ignored, as is one of the past."""
        if not (0 < price < math.inf) or now_s <= self._seen_s:
            return
        log_price = math.log(price)
        if self._seen_s == -math.inf:
            self._level = self._slow = log_price
        else:
            self._judge_forecasts(log_price, now_s)
            self._follow(log_price, now_s - self._seen_s)
        self._seen_s = now_s
        self._learn_day(now_s)
        if not self._pending or now_s - self._pending[-1][0] + HORIZON_S >= FORECAST_EVERY_S:
            self._pending.append((now_s + HORIZON_S, self._expected_log(now_s)))

    def expected(self, now_s: float) -> float:
        """Return the price expected an hour from now."""
        return math.exp(self._expected_log(now_s))

    def quantile(self, level: float, now_s: float) -> float:
        """Return the price that the price an hour from now stays below with this probability."""
        if level not in self._margins:
            self._margins[level] = self._margin(level)
        return math.exp(self._expected_log(now_s) + self._margins[level])

    @property
    def state(self) -> PriceState:
        """What to keep over restarts."""
        return PriceState(
            self._level,
            self._slow,
            self._deviation,
            self._seen_s,
            tuple(self._day),
            tuple(self._days),
            tuple(float(value) for value in self._residuals.oldest_first()),
        )

    @state.setter
    def state(self, kept: PriceState) -> None:
        self._level = kept.level
        self._slow = kept.slow
        self._deviation = kept.deviation
        self._seen_s = kept.seen_s
        if len(kept.day) == len(kept.days) == SLOTS:
            self._day = list(kept.day)
            self._days = list(kept.days)
        self._residuals = Residuals(MAX_RESIDUALS)
        for value in kept.residuals:
            self._residuals.add(value)
        self._margins.clear()

    def _margin(self, level: float) -> float:
        if self._residuals.count < MIN_RESIDUALS:
            return math.copysign(INITIAL_MARGIN, level - 0.5)
        return float(self._residuals.quantiles(np.array([level]))[0])

    def _expected_log(self, now_s: float) -> float:
        if min(self._days) < MIN_DAYS:
            return self._level
        return self._level + self._day[_slot(now_s + HORIZON_S)] - self._day[_slot(now_s)]

    def _judge_forecasts(self, log_price: float, now_s: float) -> None:
        """Turn forecasts whose hour has passed into residuals.

        The price at the forecast's time is known only if it was looked at soon after.
        """
        while self._pending and self._pending[0][0] <= now_s:
            about_s, forecast = self._pending.popleft()
            if now_s - about_s <= FORECAST_EVERY_S:
                self._residuals.add(log_price - forecast)
                self._margins.clear()

    def _follow(self, log_price: float, passed_s: float) -> None:
        """Move the means by the time that has passed, however often prices are seen."""
        offset = log_price - self._level
        limit = MAX_DEVIATIONS * max(self._deviation, MIN_DEVIATION)
        rate = 1.0 - math.exp(-passed_s / LEVEL_TIME_S)
        self._level += rate * min(max(offset, -limit), limit)
        # The deviation sees the whole offset, so that a lasting change is followed.
        self._deviation += rate * (min(abs(offset), MAX_DEVIATION) - self._deviation)
        slow_rate = 1.0 - math.exp(-passed_s / SLOW_TIME_S)
        self._slow += slow_rate * (self._level - self._slow)

    def _learn_day(self, now_s: float) -> None:
        """Learn the distance of the level from the slow mean, once for each hour of each day."""
        slot = _slot(now_s)
        if slot == self._last_slot:
            return
        self._last_slot = slot
        rate = SLOT_RATE if self._days[slot] else 1.0
        self._day[slot] += rate * (self._level - self._slow - self._day[slot])
        self._days[slot] += 1


def _slot(unix_s: float) -> int:
    return int(unix_s % DAY_S / DAY_S * SLOTS)
