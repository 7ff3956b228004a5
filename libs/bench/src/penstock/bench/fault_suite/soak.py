"""The whole stack for half an hour under a steady load of mixed calls: memory, descriptors, threads
and what the stores keep must be flat in the second half.

The growth is that of the straight line through the samples of the second half, of what all
processes of the stack hold together; warming up (caches, learned values) is over by the middle. Its
interval is over blocks of consecutive samples. The stores are processes of the stack, so their
memory is part of the sum, and stands apart as well.

What is looked for is growth without a bound. What is kept up to a bound (traces, series of metrics,
jobs, receipts, answers that may be reported) has to be full by the middle: where the bound is a
setting it is set low, and callers do not pause between calls in the first third.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from penstock.bench.edge.provider import provider_process
from penstock.bench.fault_suite.logs import SOAK, append
from penstock.bench.fault_suite.soak_calls import SoakCalls, http_client, sections
from penstock.bench.faults.whole_stack import KEY, whole_stack
from penstock.bench.harness.intervals import Interval, blocks_of, bootstrap
from penstock.client import Penstock

MINUTES = 30.0
CLIENTS, APART_S = 4, 0.2
FILLING_SHARE = 1 / 3
"""Of the time, in which calls follow each other without a pause."""
SAMPLES = 200
BLOCKS, DRAWS = 10, 1_000
"""Blocks of consecutive samples that the interval of the growth is over."""
STORES = ("valkey-server", "redis-server")
BOUNDS = {
    "PENSTOCK_TELEMETRY_WINDOW_BYTES": str(2 << 20),
    "PENSTOCK_TELEMETRY_SERIES_BYTES": str(8 << 20),
    "PENSTOCK_KEPT_JOBS_MIB": "2",
    "PENSTOCK_KEPT_RECEIPTS": "1000",
    "PENSTOCK_RECEIPTS_PER_KEY": "500",
}


@dataclass(frozen=True)
class Sample:
    """What the processes of the stack hold at one time; memory by what they run."""

    memory_mb: Mapping[str, float]
    descriptors: int
    threads: int


@dataclass
class Calls:
    """How the calls went so far."""

    answered: int = 0
    errors: int = 0
    apart_s: float = 0.0
    """The pause that callers make after a call."""


@dataclass(frozen=True)
class Soaked:
    """What was measured; the growth is of the second half, whose samples stand beside it."""

    minutes: float
    answered: int
    errors: int
    growth_mb: float
    growth_mb_of: Mapping[str, float]
    growth_descriptors: float
    growth_threads: float
    end_mb: float
    second_half_mb: Sequence[float]


async def measure(folder: Path, minutes: float = MINUTES) -> Soaked:
    """One measurement."""
    samples: list[Sample] = []
    calls, stop = Calls(), asyncio.Event()
    with provider_process() as provider:
        async with (
            whole_stack(folder, "cell", sections=sections(provider)) as stack,
            Penstock(stack.addresses["router"], KEY) as grpc,
        ):
            made = SoakCalls(grpc, http_client(stack.addresses["edge"]))
            callers = [asyncio.create_task(_call(made, n, stop, calls)) for n in range(CLIENTS)]
            for number in range(SAMPLES):
                calls.apart_s = 0.0 if number < SAMPLES * FILLING_SHARE else APART_S
                await asyncio.sleep(minutes * 60.0 / SAMPLES)
                samples.append(_sample(stack.supervisor.pids))
            stop.set()
            await asyncio.gather(*callers)
            made.http.close()
    return _summed(minutes, calls, samples)


def _summed(minutes: float, calls: Calls, samples: Sequence[Sample]) -> Soaked:
    names = sorted({name for sample in samples for name in sample.memory_mb})
    half = samples[len(samples) // 2 :]
    held_mb = [round(sum(sample.memory_mb.values()), 2) for sample in half]
    return Soaked(
        minutes,
        calls.answered,
        calls.errors,
        growth(list(enumerate(held_mb))),
        {
            name: growth([(at, one.memory_mb.get(name, 0.0)) for at, one in enumerate(half)])
            for name in names
        },
        growth([(at, float(sample.descriptors)) for at, sample in enumerate(half)]),
        growth([(at, float(sample.threads)) for at, sample in enumerate(half)]),
        held_mb[-1],
        held_mb,
    )


async def _call(made: SoakCalls, number: int, stop: asyncio.Event, calls: Calls) -> None:
    """Make calls one after the other until told to stop."""
    while not stop.is_set():
        number += CLIENTS
        if await made.make(number):
            calls.answered += 1
        else:
            calls.errors += 1
        await asyncio.sleep(calls.apart_s)


def _sample(pids: Sequence[int]) -> Sample:
    """What these processes and those that they have started hold now."""
    memory_mb: dict[str, float] = defaultdict(float)
    descriptors, threads = 0, 0
    for process in _with_children(pids):
        try:
            with process.oneshot():
                memory_mb[_label(process)] += process.memory_info().rss / 2**20
                descriptors += process.num_fds()
                threads += process.num_threads()
        except psutil.Error:
            continue
    return Sample(memory_mb, descriptors, threads)


def _label(process: psutil.Process) -> str:
    """What a process runs: a store, or the module of a service with its arguments."""
    if process.name() in STORES:
        return "stores"
    words = process.cmdline()
    return " ".join(words[words.index("-m") + 1 :]) if "-m" in words else process.name()


def _with_children(pids: Sequence[int]) -> set[psutil.Process]:
    found: set[psutil.Process] = set()
    for pid in pids:
        try:
            process = psutil.Process(pid)
            found |= {process, *process.children(recursive=True)}
        except psutil.Error:
            continue
    return found


def growth(samples: Sequence[tuple[int, float]], span: int | None = None) -> float:
    """By how much the straight line through samples (number, value) rises over them.

    Args:
        span: samples that the line is followed over; None: all of these.
    """
    numbers, values = zip(*samples, strict=True)
    slope = statistics.linear_regression(numbers, values).slope
    return slope * ((len(samples) if span is None else span) - 1)


def growth_interval(second_half_mb: Sequence[float]) -> Mapping[str, Interval]:
    """The interval of the growth in memory, over blocks of consecutive samples."""
    blocks = blocks_of(list(enumerate(second_half_mb)), BLOCKS)

    def of_blocks(drawn: Sequence[Sequence[tuple[int, float]]]) -> Mapping[str, float]:
        samples = [sample for block in drawn for sample in block]
        return {"soak_growth_mb": growth(samples, len(second_half_mb))}

    return bootstrap(blocks, of_blocks, f"blocks of {len(blocks[0])} samples", DRAWS)


def main() -> int:
    """Measure once and append a line to the log."""
    parser = argparse.ArgumentParser(prog="python -m penstock.bench.fault_suite.soak")
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--log", type=Path, default=SOAK)
    given = parser.parse_args()
    os.environ |= BOUNDS
    with tempfile.TemporaryDirectory(prefix="penstock-soak-") as folder:
        measured = asyncio.run(measure(Path(folder) / "stack", given.minutes))
    append(given.log, asdict(measured))
    print(asdict(measured))
    return 0


if __name__ == "__main__":
    sys.exit(main())
