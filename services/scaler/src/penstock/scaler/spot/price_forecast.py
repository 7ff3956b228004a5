"""The forecast of one place's spot price: a robust mean that forgets, the course of the day, and
quantiles of what it missed by. No I/O.

Spot prices are positive and move by shares of themselves, so all is done on logarithms. Time is an
argument, in Unix seconds.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from penstock.scaler.forecast.features import DAY_S
from penstock.scaler.forecast.scoring import Residuals

HORIZON_S = 3_600.0
"""How far ahead prices are forecast: about as long as an instance is held before it could be moved.
"""
LEVEL_S, SLOW_S = 1_800.0, DAY_S
"""Times in which the mean of the moment and that of the day forget."""
JUMP = 3.0
"""What is further off than so many mean deviations counts as so many: one odd price moves nothing,
a lasting one does soon.
"""
LEAST_DEVIATION = 0.01
SLOTS = 24
SLOT_RATE = 0.3
LEAST_DAYS = 3
"""The course of the day counts once every hour was seen on so many days; one day is a trend, two
are a chance.
"""
NOTED_S = 900.0
LEAST_RESIDUALS = 30
UNKNOWN_SPREAD = 0.25
"""Logarithmic margin of the high quantile until enough was missed by to know."""


@dataclass(frozen=True)
class PriceState:
    """What is kept over restarts."""

    level: float
    slow: float
    deviation: float
    seen_s: float
    day: tuple[float, ...]
    days: tuple[int, ...]
    residuals: tuple[float, ...]


class PriceForecast:
    """Learns from prices as they are seen, at uneven moments."""

    def __init__(self, first: float) -> None:
        self._level = self._slow = math.log(first)
        self._deviation = LEAST_DEVIATION
        self._seen_s = -math.inf
        self._day, self._days, self._noted_slot = [0.0] * SLOTS, [0] * SLOTS, -1
        self._residuals = Residuals(500)
        self._made: deque[tuple[float, float]] = deque()
        self._margins: dict[float, float] = {}

    def saw(self, price: float, now_s: float) -> None:
        """Take a price; one that is not positive and finite says nothing, nor does one of the
        past.
        """
        if not (0 < price < math.inf) or now_s <= self._seen_s:
            return
        log = math.log(price)
        if self._seen_s == -math.inf:
            self._level = self._slow = log
        else:
            self._judge(log, now_s)
            self._follow(log, now_s - self._seen_s)
        self._seen_s = now_s
        self._learn_day(now_s)
        if not self._made or now_s - self._made[-1][0] + HORIZON_S >= NOTED_S:
            self._made.append((now_s + HORIZON_S, self._ahead(now_s)))

    def expected(self, now_s: float) -> float:
        """The price an hour from now."""
        return math.exp(self._ahead(now_s))

    def quantile(self, level: float, now_s: float) -> float:
        """The price an hour from now that it stays below with this chance, from what past forecasts
        missed by (conformal).
        """
        if level not in self._margins:
            known = self._residuals.count >= LEAST_RESIDUALS
            usual = math.copysign(UNKNOWN_SPREAD, level - 0.5)
            self._margins[level] = (
                float(self._residuals.quantiles(np.array([level]))[0]) if known else usual
            )
        return math.exp(self._ahead(now_s) + self._margins[level])

    @property
    def state(self) -> PriceState:
        """What to keep."""
        missed = tuple(float(value) for value in self._residuals.dump())
        means = self._level, self._slow, self._deviation, self._seen_s
        return PriceState(*means, tuple(self._day), tuple(self._days), missed)

    @state.setter
    def state(self, kept: PriceState) -> None:
        self._level, self._slow, self._deviation, self._seen_s = (
            kept.level,
            kept.slow,
            kept.deviation,
            kept.seen_s,
        )
        if len(kept.day) == len(kept.days) == SLOTS:
            self._day, self._days = list(kept.day), list(kept.days)
        self._residuals = Residuals(500)
        for value in kept.residuals:
            self._residuals.add(value)
        self._margins.clear()

    def _ahead(self, now_s: float) -> float:
        if min(self._days) < LEAST_DAYS:
            return self._level
        return self._level + self._day[_slot(now_s + HORIZON_S)] - self._day[_slot(now_s)]

    def _judge(self, log: float, now_s: float) -> None:
        while self._made and self._made[0][0] <= now_s:
            at_s, said = self._made.popleft()
            if now_s - at_s <= NOTED_S:  # nobody knows the price of a moment that nobody looked at
                self._residuals.add(log - said)
                self._margins.clear()

    def _follow(self, log: float, passed_s: float) -> None:
        """Means that forget with time, not with looks; what is far off counts as less far."""
        off, far = log - self._level, JUMP * max(self._deviation, LEAST_DEVIATION)
        rate = 1.0 - math.exp(-passed_s / LEVEL_S)
        self._level += rate * min(max(off, -far), far)
        # The deviation sees the whole of it, so that a price that stays is followed.
        self._deviation += rate * (min(abs(off), 1.0) - self._deviation)
        self._slow += (1.0 - math.exp(-passed_s / SLOW_S)) * (self._level - self._slow)

    def _learn_day(self, now_s: float) -> None:
        """How far the mean of the moment is from that of the day, once for each hour of each
        day.
        """
        slot = _slot(now_s)
        if slot == self._noted_slot:
            return
        self._noted_slot = slot
        rate = 1.0 if not self._days[slot] else SLOT_RATE
        self._day[slot] += rate * (self._level - self._slow - self._day[slot])
        self._days[slot] += 1


def _slot(unix_s: float) -> int:
    return int(unix_s % DAY_S / DAY_S * SLOTS)
