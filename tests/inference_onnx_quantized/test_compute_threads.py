"""The compute threads: outcomes, failures, cancels before and during the work, and a clean end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
from penstock.inference_onnx_quantized.compute_threads import Cancelled, ComputeThreads, LoadMeter
from penstock.service.clock import SystemClock

WAIT_S = 30
"""Ends a test that would otherwise hang."""


@pytest.fixture
def meter() -> LoadMeter:
    return LoadMeter(1)


@pytest.fixture
def threads(meter: LoadMeter) -> Iterator[ComputeThreads]:
    """One thread."""
    made = ComputeThreads(1, meter, SystemClock())
    yield made
    made.close()
    assert meter.running == 0


async def test_outcomes_come_back_to_their_callers(threads: ComputeThreads) -> None:
    work = (threads.run(lambda _, number=number: number) for number in range(200))
    outcomes = await asyncio.gather(*work)
    assert [result for result, _ in outcomes] == list(range(200))
    assert all(seconds >= 0 for _, seconds in outcomes)


async def test_a_failure_reaches_its_caller_and_the_thread_goes_on(
    threads: ComputeThreads,
) -> None:
    def fail(_: Cancelled) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await threads.run(fail)
    assert (await threads.run(lambda _: 1))[0] == 1


async def test_cancelled_work_that_has_not_started_never_starts(threads: ComputeThreads) -> None:
    started, gate = threading.Event(), threading.Event()
    ran: list[str] = []

    def hold_the_thread(_: Cancelled) -> None:
        started.set()
        gate.wait(WAIT_S)

    first = asyncio.create_task(threads.run(hold_the_thread))
    second = asyncio.create_task(threads.run(lambda _: ran.append("second")))
    await asyncio.to_thread(started.wait, WAIT_S)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    gate.set()
    await first
    await threads.run(lambda _: ran.append("third"))
    assert ran == ["third"]


async def test_running_work_sees_its_cancel_and_frees_the_slot(
    threads: ComputeThreads, meter: LoadMeter
) -> None:
    started, seen = threading.Event(), threading.Event()

    def work(cancelled: Cancelled) -> None:
        started.set()
        while not cancelled():
            pass
        seen.set()

    task = asyncio.create_task(threads.run(work))
    await asyncio.to_thread(started.wait, WAIT_S)
    assert meter.running == 1
    task.cancel()
    assert (await threads.run(lambda _: "next"))[0] == "next"
    assert seen.is_set()


async def test_closing_waits_for_what_runs(meter: LoadMeter) -> None:
    threads = ComputeThreads(1, meter, SystemClock())
    started, gate = threading.Event(), threading.Event()
    ended: list[bool] = []

    def work(_: Cancelled) -> None:
        started.set()
        gate.wait(WAIT_S)
        ended.append(True)

    task = asyncio.create_task(threads.run(work))
    await asyncio.to_thread(started.wait, WAIT_S)
    gate.set()
    await asyncio.to_thread(threads.close)
    assert ended == [True]
    await task
