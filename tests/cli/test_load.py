"""Open-loop load: arrivals, latencies from the time at which calls were due, and the histogram."""

from __future__ import annotations

import asyncio
import itertools
import random

import pytest
from penstock.cli.load.histogram import GROWTH, Histogram
from penstock.cli.load.open_loop import LoadResult, due_times_s, run_open_loop
from penstock.cli.load.report import load_data
from penstock.client.errors import PenstockError, from_fault
from penstock.rpc.errors import unavailable
from penstock.testkit.clock import FakeClock


def test_constant_arrivals_have_equal_gaps() -> None:
    assert list(due_times_s(4, 1, "constant", random.Random(1))) == [0, 0.25, 0.5, 0.75]


def test_poisson_arrivals_have_the_rate_and_exponential_gaps() -> None:
    due_s = list(due_times_s(100, 100, "poisson", random.Random(1)))
    gaps_s = [late - early for early, late in itertools.pairwise(due_s)]
    mean_s = sum(gaps_s) / len(gaps_s)
    deviation_s = (sum((gap - mean_s) ** 2 for gap in gaps_s) / len(gaps_s)) ** 0.5
    assert mean_s == pytest.approx(0.01, rel=0.05)
    assert deviation_s == pytest.approx(mean_s, rel=0.05)


async def drive(clock: FakeClock, load: asyncio.Task[LoadResult]) -> LoadResult:
    """Let virtual time pass until the load has ended."""
    while not load.done():
        await clock.advance(0.01)
    return load.result()


async def test_a_stall_counts_for_every_call_that_was_due_meanwhile() -> None:
    clock = FakeClock()
    server = asyncio.Lock()

    async def send(number: int) -> None:
        """One server that takes 10 ms a call, but a second for the first."""
        async with server:
            await clock.sleep(1.0 if number == 0 else 0.01)

    due_s = due_times_s(10, 2, "constant", random.Random(1))
    result = await drive(clock, asyncio.create_task(run_open_loop(send, due_s, clock, 100)))
    assert result.latencies.total == 20
    # Ten calls were due during the stall of a second; a closed loop would have sent one.
    waited = sum(count for low, _, count in result.latencies.rows(1000) if low >= 90)
    assert waited >= 10
    assert result.latencies.max_ms >= 1000


async def test_failures_are_counted_by_code_and_calls_beyond_the_bound_are_not_sent() -> None:
    clock = FakeClock()
    sent: list[int] = []

    async def send(number: int) -> None:
        sent.append(number)
        await clock.sleep(5.0)
        if number == 0:
            raise from_fault(unavailable("down"))

    due_s = due_times_s(10, 1, "constant", random.Random(1))
    result = await drive(clock, asyncio.create_task(run_open_loop(send, due_s, clock, 4)))
    assert sent == [0, 1, 2, 3]
    assert dict(result.failures) == {"UNAVAILABLE": 1}
    assert (result.latencies.total, result.skipped) == (3, 6)


async def test_an_error_that_is_no_answer_ends_the_load() -> None:
    clock = FakeClock()

    async def send(number: int) -> None:
        raise ValueError("a mistake of the command")

    due_s = due_times_s(10, 0.1, "constant", random.Random(1))
    with pytest.raises(ValueError, match="a mistake"):
        await run_open_loop(send, due_s, clock, 4)
    assert issubclass(PenstockError, Exception)


def test_quantiles_are_exact_to_the_width_of_a_bucket() -> None:
    histogram = Histogram()
    rng = random.Random(1)
    values = [rng.lognormvariate(2, 1) for _ in range(10_000)]
    for value in values:
        histogram.add(value)
    ordered = sorted(values)
    for share in (0.5, 0.9, 0.99, 0.999):
        exact = ordered[int(share * len(values)) - 1]
        assert exact <= histogram.quantile_ms(share) <= exact * GROWTH**2
    assert histogram.quantile_ms(1.0) == histogram.max_ms == ordered[-1]


def test_rows_hold_every_call_once() -> None:
    histogram = Histogram()
    for value in (0.0, 0.5, 3.0, 3.1, 900.0):
        histogram.add(value)
    rows = histogram.rows(7)
    assert len(rows) <= 7
    assert sum(count for _, _, count in rows) == 5
    assert all(low < high for low, high, _ in rows)


def test_an_empty_result_has_zeros_and_no_rows() -> None:
    data = load_data(LoadResult(), 10)
    assert data["latency_ms"]["p99"] == 0
    assert data["histogram"] == []
