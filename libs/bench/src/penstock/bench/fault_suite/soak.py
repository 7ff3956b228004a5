"""The whole stack for half an hour under a steady load of mixed calls: memory, descriptors and what
the stores keep must be flat in the second half.

The growth is the median of the last tenth less the median of the tenth in the middle, of what all
processes of the stack hold together; warming up (caches, learned values) is over by the middle.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from penstock.bench.fault_suite.logs import SOAK, append
from penstock.bench.faults.whole_stack import KEY, whole_stack
from penstock.client import Penstock, PenstockError

MINUTES = 30.0
CLIENTS, APART_S = 4, 0.4
SAMPLES = 200
TEXTS = 500
"""Different texts, so that some calls are answered from caches and others are not."""


@dataclass(frozen=True)
class Sample:
    """What all processes hold at one time."""

    memory_mb: float
    descriptors: int


@dataclass(frozen=True)
class Soaked:
    """What was measured."""

    minutes: float
    answered: int
    errors: int
    growth_mb: float
    growth_descriptors: float
    end_mb: float


async def measure(folder: Path, minutes: float = MINUTES) -> Soaked:
    """One measurement."""
    samples: list[Sample] = []
    answered, errors = [0], [0]
    async with whole_stack(folder, "cell") as stack:
        stop = asyncio.Event()
        callers = [
            asyncio.create_task(_call(stack.addresses["router"], number, stop, answered, errors))
            for number in range(CLIENTS)
        ]
        for _ in range(SAMPLES):
            await asyncio.sleep(minutes * 60.0 / SAMPLES)
            samples.append(_sample())
        stop.set()
        await asyncio.gather(*callers)
    memory = [one.memory_mb for one in samples]
    descriptors = [float(one.descriptors) for one in samples]
    growth = _growth(memory), _growth(descriptors)
    return Soaked(minutes, answered[0], errors[0], *growth, memory[-1])


async def _call(
    address: str, number: int, stop: asyncio.Event, answered: list[int], errors: list[int]
) -> None:
    async with Penstock(address, KEY) as client:
        count = 0
        while not stop.is_set():
            count += 1
            text = f"text {(number + count * 7) % TEXTS}"
            try:
                if count % 3:
                    await client.embed([text])
                else:
                    await client.rerank(text, ["one document", "another document"])
                answered[0] += 1
            except PenstockError:
                errors[0] += 1
            await asyncio.sleep(APART_S)


def _sample() -> Sample:
    """What the processes that this one has started hold now."""
    memory, descriptors = 0, 0
    for child in psutil.Process().children(recursive=True):
        try:
            memory += child.memory_info().rss
            descriptors += child.num_fds()
        except psutil.Error:
            continue
    return Sample(memory / 2**20, descriptors)


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
