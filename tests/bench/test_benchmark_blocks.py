"""What benchmarks compute from blocks: curves, thresholds, budgets and rates."""

from __future__ import annotations

import math

import numpy as np
import pytest
from penstock.bench.harness.intervals import blocks_of, of_rate, pooled_quantile
from penstock.bench.limiter.budget import WINDOW_S, Arrival, spent_after_answer
from penstock.bench.scaling.reactive_rules import Sums, envelope_at
from penstock.bench.telemetry.static_thresholds import (
    MIN_GAP,
    alerts_above,
    false_alerts_at_recall,
)

WORK = np.array([1.0, 2.0, 3.0, 4.0])
CAPACITY = np.array([[2.0, 4.0], [2.0, 4.0], [2.0, 4.0], [2.0, 4.0]])
"""Of two values of a parameter."""


def test_sums_of_parts_are_the_sums_of_the_whole() -> None:
    whole = Sums.of(WORK, CAPACITY)
    parts = [Sums.of(WORK[:1], CAPACITY[:1]), Sums.of(WORK[1:], CAPACITY[1:])]
    together = Sums.together(parts)
    assert together.short.tolist() == whole.short.tolist() == [2.0, 0.0]
    assert together.unused.tolist() == whole.unused.tolist() == [1.0, 6.0]
    assert (together.steps, together.work) == (4, 10.0)


def test_over_provision_is_read_between_two_values_of_the_parameter() -> None:
    at_none, halfway, at_half = envelope_at(Sums.of(WORK, CAPACITY), (0.0, 0.25, 0.5))
    assert (at_none, halfway, at_half) == (0.6, pytest.approx(0.35), 0.1)


def test_a_rule_that_is_always_short_reaches_no_shortfall_below() -> None:
    sums = Sums.of(WORK, np.full((4, 1), 2.0))
    assert envelope_at(sums, (0.1,)) == (math.inf,)


def test_a_value_that_costs_more_for_a_larger_shortfall_is_not_on_the_envelope() -> None:
    sums = Sums(np.array([0.0, 2.0]), np.array([1.0, 5.0]), 4, 10.0)
    assert envelope_at(sums, (0.0, 0.5)) == (0.1, 0.1)


def test_no_alert_follows_another_within_the_gap() -> None:
    distances = [0.0] * 10 + [1.0] * (2 * MIN_GAP + 2)
    assert alerts_above(distances, 0.5, 0) == [10, 10 + MIN_GAP + 1]
    assert alerts_above(distances, 0.5, 12) == [12, 12 + MIN_GAP + 1]
    assert alerts_above(distances, 1.0, 0) == []


def test_the_highest_level_that_hits_as_many_windows_counts() -> None:
    counts = np.array([[1, 0], [3, 4], [5, 9]])
    assert [false_alerts_at_recall(counts, hit) for hit in (1, 2, 3, 4, 6)] == [0, 4, 4, 9, 9]


def test_a_budget_of_what_was_spent_overruns_by_what_is_in_flight() -> None:
    calls = [Arrival(0.1 * number, 4, 1_000, 1_000) for number in range(5)]
    cost = calls[0].cost_microusd
    spending = spent_after_answer(calls, cost)
    assert spending.overrun(cost) == 4 * cost
    late = Arrival(WINDOW_S - 1.0, 4, 1_000, 1_000)
    assert spent_after_answer([*calls, late], cost).served[4] == 5


def test_a_rate_without_an_event_has_an_upper_end_only() -> None:
    none, one = of_rate(0, 4.0, "service hours"), of_rate(1, 4.0, "service hours")
    assert none.low == 0.0
    assert none.high == pytest.approx(-math.log(0.025) / 4.0)
    assert one.low > 0.0 and one.high > none.high


def test_blocks_are_of_equal_length_and_in_order() -> None:
    assert blocks_of(range(7), 3) == [range(2), range(2, 4), range(4, 6)]
    assert blocks_of(range(2), 3) == []
    assert pooled_quantile([[1.0, 2.0], [3.0, 4.0]], 0.5) == 2.0
