"""The whole stack for half an hour under a steady load of mixed calls: memory, descriptors, threads
and what the stores keep must be flat in the second half.

The growth is the median of the last tenth less the median of the tenth in the middle, of what all
processes of the stack hold together; warming up (caches, learned values) is over by the middle. The
stores are processes of the stack, so their memory is part of the sum, and stands apart as well.

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
from penstock.client import Penstock

MINUTES = 30.0
CLIENTS, APART_S = 4, 0.2
FILLING_SHARE = 1 / 3
"""Of the time, in which calls follow each other without a pause."""
SAMPLES = 200
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
    """What was measured; the growth is of the second half."""

    minutes: float
    answered: int
    errors: int
    growth_mb: float
    growth_mb_of: Mapping[str, float]
    growth_descriptors: float
    growth_threads: float
    end_mb: float


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
    return Soaked(
        minutes,
        calls.answered,
        calls.errors,
        _growth([sum(sample.memory_mb.values()) for sample in samples]),
        {name: _growth([one.memory_mb.get(name, 0.0) for one in samples]) for name in names},
        _growth([float(sample.descriptors) for sample in samples]),
        _growth([float(sample.threads) for sample in samples]),
        sum(samples[-1].memory_mb.values()),
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


def _growth(values: Sequence[float]) -> float:
    """By how much the end is above the middle."""
    tenth, middle = max(len(values) // 10, 1), len(values) // 2
    return statistics.median(values[-tenth:]) - statistics.median(values[middle : middle + tenth])


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
