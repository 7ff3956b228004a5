"""The figures of the benchmark of the edge: from its rounds, each bound judged by an interval."""

from __future__ import annotations

import pytest
from penstock.bench.edge.benchmark import BOUNDS, EXACT, Measured, figures_of, intervals_of
from penstock.bench.edge.provider import CHUNKS
from penstock.bench.edge.rounds import Opened, Side, StreamCpu
from penstock.bench.harness.load import LoadResult


def load(rps: float, p50_ms: float) -> LoadResult:
    return LoadResult(rps, {0: p50_ms, 1: p50_ms, 2: p50_ms + 1})


def measured(rounds: int) -> Measured:
    """Rounds in which all grows alike, so that the ratios are the same in each."""
    scales = [1 + number / 10 for number in range(rounds)]
    sides = [
        {
            "Penstock": Side(load(600 * scale, 10), load(3_000 * scale, 2)),
            "LiteLLM": Side(load(100 * scale, 50), load(150 * scale, 40)),
        }
        for scale in scales
    ]
    return Measured(
        sides,
        [Opened(4 * scale, 12 * scale, 2 * scale) for scale in scales],
        [StreamCpu(4 * CHUNKS * scale, 3 * CHUNKS * scale, 0.5 * scale) for scale in scales],
        [5.0, 7.0, 6.0, 5.0, 5.0, 5.0],
        0,
    )


def test_each_figure_is_the_median_of_its_rounds() -> None:
    figures = figures_of(measured(7))
    assert figures["vs_litellm_rps_cached"] == pytest.approx(20)
    assert figures["vs_litellm_rps_uncached"] == pytest.approx(6)
    assert figures["p50_vs_litellm"] == pytest.approx(0.2)
    assert figures["added_p50_vs_echo"] == pytest.approx(2)
    assert figures["added_p99_vs_echo"] == pytest.approx(6)
    assert figures["uncached_rps"] == pytest.approx(600 * 1.3)


def test_a_streamed_calls_cpu_is_told_with_and_without_that_of_the_call() -> None:
    figures = figures_of(measured(7))
    assert figures["sse_cpu_us_per_chunk"] == pytest.approx(4 * 1.3)
    assert figures["sse_cpu_vs_json"] == pytest.approx(8)
    assert figures["sse_chunk_cpu_vs_json"] == pytest.approx(2)


def test_the_slowest_disconnect_counts() -> None:
    assert figures_of(measured(7))["disconnect_cancels_ms"] == 7.0


def test_every_figure_that_is_asked_for_is_exact_or_has_an_interval() -> None:
    intervals = intervals_of(measured(7))
    assert set(BOUNDS) <= EXACT | set(intervals)
    of = intervals["uncached_rps"]
    assert (of.low, of.high, of.n, of.of) == (600, 600 * 1.6, 7, "rounds")


def test_one_round_has_no_interval() -> None:
    assert set(intervals_of(measured(1))) <= {"disconnect_cancels_ms"}
