"""The compute threads: outcomes, failures, cancels while waiting and while running, and an end that
loses nothing.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
from penstock.inference_onnx_quantized.compute_threads import Cancelled, ComputeThreads
from penstock.inference_onnx_quantized.load_meter import LoadMeter
from penstock.service.clock import SystemClock


@pytest.fixture
def meter() -> LoadMeter:
    return LoadMeter(1)


@pytest.fixture
def runner(meter: LoadMeter) -> Iterator[ComputeThreads]:
    made = ComputeThreads(1, meter, SystemClock())
    yield made
    made.close()
    assert meter.running == 0


async def test_outcomes_come_back_to_their_callers(runner: ComputeThreads) -> None:
    found = await asyncio.gather(
        *(runner.run(lambda _, number=number: number) for number in range(200))
    )
    assert [result for result, _ in found] == list(range(200))
    assert all(seconds >= 0 for _, seconds in found)


async def test_a_failure_is_its_callers_alone(runner: ComputeThreads) -> None:
    def fail(_: Cancelled) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await runner.run(fail)
    assert (await runner.run(lambda _: 1))[0] == 1


async def test_what_nobody_waits_for_is_not_begun(runner: ComputeThreads) -> None:
    gate, ran = threading.Event(), []
    first = asyncio.create_task(runner.run(lambda _: gate.wait(30)))
    second = asyncio.create_task(runner.run(lambda _: ran.append("second")))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    gate.set()
    await first
    await runner.run(lambda _: ran.append("third"))
    assert ran == ["third"]


async def test_running_work_sees_the_cancel_and_the_slot_is_free(
    runner: ComputeThreads, meter: LoadMeter
) -> None:
    begun, seen = threading.Event(), threading.Event()

    def work(cancelled: Cancelled) -> None:
        begun.set()
        while not cancelled():
            pass
        seen.set()

    task = asyncio.create_task(runner.run(work))
    await asyncio.to_thread(begun.wait, 30)
    assert meter.running == 1
    task.cancel()
    assert (await runner.run(lambda _: "next"))[0] == "next"
    assert seen.is_set()


async def test_the_end_waits_for_what_runs(meter: LoadMeter) -> None:
    runner, gate, done = ComputeThreads(1, meter, SystemClock()), threading.Event(), []
    task = asyncio.create_task(runner.run(lambda _: (gate.wait(30), done.append(1))))
    await asyncio.sleep(0)
    gate.set()
    await asyncio.to_thread(runner.close)
    assert done == [1]
    await task
