"""What benchmarks compute from blocks: curves, thresholds, budgets and rates."""

from __future__ import annotations

import math

import numpy as np
import pytest
from penstock.bench.fault_suite.soak import growth, growth_interval
from penstock.bench.harness.intervals import blocks_of, of_rate, pooled_quantile
from penstock.bench.limiter.budget import WINDOW_S, Arrival, spent_after_answer
from penstock.bench.runs import next_steps
from penstock.bench.runs.next_steps import Waits
from penstock.bench.runs.prefixes import Counts, cost_error
from penstock.bench.scaling.reactive_rules import Sums, envelope_at, hpa
from penstock.bench.scaling.series import Series
from penstock.bench.scaling.whole_instances import POLICY, Asked, blocks_of_cell, cut, decided
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


def test_the_hpa_with_whole_instances_rounds_up_and_keeps_one() -> None:
    work = np.array([0.0, 2.1, 2.2, 0.0, 0.0])
    assert hpa(work, 300.0, 1.0, whole=True).tolist() == [1.0, 3.0, 3.0, 3.0, 1.0]


def test_what_is_asked_for_serves_after_the_lead_and_is_paid_for_at_once() -> None:
    work = np.array([1.0, 1.0, 3.0, 3.0])
    asked = Asked(np.array([[1.0], [3.0], [3.0], [3.0]]), np.array([[1.0], [3.0], [3.0], [3.0]]))
    at_once, later = (asked.sums(work, np.array([2, 3]), lead, 1.0) for lead in (1, 2))
    assert (at_once.short.tolist(), at_once.unused.tolist()) == ([0.0], [0.0])
    assert later.short.tolist() == [1.0], "what was asked for after the second step starts yet"
    assert later.unused.tolist() == [2.0]


def test_the_serving_decision_follows_the_forecast_and_keeps_what_a_start_costs() -> None:
    work = np.array([10.0] * 6 + [1.0] * 6)
    series = Series("steps", 0.0, 60.0, work, 2)
    asked = decided(series, 1, work * 1.5, 1.0)
    assert asked.fewest[5] == 15, "the forecast's need"
    kept = round(POLICY.start_cost_s / series.step_s)
    assert asked.fewest[6 : 6 + kept].tolist() == [[15.0]] * kept
    assert asked.fewest[-1] < 15
    whole = blocks_of_cell(series, 1, work * 1.5, np.array_split(np.arange(10), 2))
    assert [block.ours.steps for block in whole] == [5, 5]
    assert cut(whole) < 1


def test_memory_that_grows_steadily_grows_by_its_line_and_noise_makes_it_uncertain() -> None:
    assert growth(list(enumerate([1.0, 2.0, 3.0]))) == pytest.approx(2.0)
    rng = np.random.default_rng(1)
    grown = (100 + 0.05 * np.arange(100) + rng.normal(0, 0.5, 100)).tolist()
    interval = growth_interval(grown)["soak_growth_mb"]
    assert interval.low < 0.05 * 99 < interval.high
    assert interval.low > 0
    assert (interval.n, interval.of) == (10, "blocks of 10 samples")


def test_costs_of_broken_prefixes_are_compared_over_all_tasks() -> None:
    parts = [Counts(said_microusd=3.0, booked_microusd=2.0), Counts(said_microusd=1.0)]
    parts[1].booked_microusd = 2.0
    assert cost_error(parts) == {"prefix_cost_error": 0.0}
    assert cost_error(parts[:1])["prefix_cost_error"] == pytest.approx(0.5)


def test_waits_and_throughput_are_compared_over_all_seeds() -> None:
    seeds = [Waits(2.0, 1.0, 10.0, 10.0, 100), Waits(2.0, 0.0, 10.0, 30.0, 100)]
    assert next_steps.figures(seeds) == {"next_step_wait_cut": 0.75, "throughput_kept": 0.5}
    order = next_steps.measure([1])[0]
    assert 0 < order.by_run_s < order.by_deadline_s
