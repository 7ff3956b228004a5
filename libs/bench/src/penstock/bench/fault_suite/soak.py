"""The whole stack for half an hour under a steady load of mixed calls: memory, descriptors, threads
and what the stores keep must be flat in the second half.

The growth is the median of the last tenth less the median of the tenth in the middle, of what all
processes of the stack hold together; warming up (caches, learned values) is over by the middle. The
stores are processes of the stack, so their memory is part of the sum, and stands apart as well.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import psutil
from penstock.bench.edge.provider import provider_process
from penstock.bench.fault_suite.logs import SOAK, append
from penstock.bench.fault_suite.soak_calls import SoakCalls, http_client, sections
from penstock.bench.faults.whole_stack import KEY, whole_stack
from penstock.client import Penstock

MINUTES = 30.0
CLIENTS, APART_S = 4, 0.4
SAMPLES = 200
STORES = ("valkey-server", "redis-server")


@dataclass(frozen=True)
class Sample:
    """What all processes of the stack hold at one time; `stores_mb` is part of `memory_mb`."""

    memory_mb: float
    stores_mb: float
    descriptors: int
    threads: int


@dataclass
class Calls:
    """How the calls went so far."""

    answered: int = 0
    errors: int = 0


@dataclass(frozen=True)
class Soaked:
    """What was measured; the growth is of the second half."""

    minutes: float
    answered: int
    errors: int
    growth_mb: float
    growth_stores_mb: float
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
            for _ in range(SAMPLES):
                await asyncio.sleep(minutes * 60.0 / SAMPLES)
                samples.append(_sample(stack.supervisor.pids))
            stop.set()
            await asyncio.gather(*callers)
            made.http.close()
    growth = {
        field.name: _growth([float(getattr(one, field.name)) for one in samples])
        for field in fields(Sample)
    }
    return Soaked(
        minutes,
        calls.answered,
        calls.errors,
        growth["memory_mb"],
        growth["stores_mb"],
        growth["descriptors"],
        growth["threads"],
        samples[-1].memory_mb,
    )


async def _call(made: SoakCalls, number: int, stop: asyncio.Event, calls: Calls) -> None:
    """Make calls one after the other until told to stop."""
    while not stop.is_set():
        number += CLIENTS
        if await made.make(number):
            calls.answered += 1
        else:
            calls.errors += 1
        await asyncio.sleep(APART_S)


def _sample(pids: Sequence[int]) -> Sample:
    """What these processes and those that they have started hold now."""
    memory, stores, descriptors, threads = 0, 0, 0, 0
    for process in _with_children(pids):
        try:
            with process.oneshot():
                resident = process.memory_info().rss
                memory += resident
                stores += resident if process.name() in STORES else 0
                descriptors += process.num_fds()
                threads += process.num_threads()
        except psutil.Error:
            continue
    return Sample(memory / 2**20, stores / 2**20, descriptors, threads)


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
    with tempfile.TemporaryDirectory(prefix="penstock-soak-") as folder:
        measured = asyncio.run(measure(Path(folder) / "stack", given.minutes))
    append(given.log, asdict(measured))
    print(asdict(measured))
    return 0


if __name__ == "__main__":
    sys.exit(main())
