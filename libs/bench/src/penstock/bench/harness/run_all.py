"""Runs all benchmarks one after the other, each in a process of its own, so that none inherits
threads or caches, and says what each took.

A quick run of all takes ten minutes on two cores that do nothing else; of benchmarks with parts
that each start stacks of their own, it takes one.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from penstock.bench.harness.progress import say
from penstock.bench.harness.registry import BENCHMARKS

QUICK = "--quick"
QUICK_PARTS: Mapping[str, str] = {
    "agent-replay": "w1",
    "fault-suite": "tests",
    "faults": "stalls",
    "overhead": "calls",
    "reading": "sources",
    "security": "tls-cpu",
}
"""The part that stands for a benchmark in a quick run of all."""


@dataclass(frozen=True)
class Ran:
    """One benchmark's run.

    Attributes:
        name: of the benchmark.
        seconds: that it took.
        cpu_s: processor seconds of its processes.
        status: exit status; 0 where it ran to its end.
    """

    name: str
    seconds: float
    cpu_s: float
    status: int

    def __str__(self) -> str:
        how = "ran" if not self.status else f"FAILED with status {self.status}"
        return f"{self.name} {how} in {self.seconds:.0f} s ({self.cpu_s:.0f} s of processor time)"


def run_all(options: Sequence[str], names: Sequence[str] = BENCHMARKS) -> int:
    """Run these benchmarks with these options of the command line; 1 where one failed."""
    runs = []
    for run in _runs(options, names):
        runs.append(run)
        say(str(run))
    failed = [run.name for run in runs if run.status]
    say(f"{len(runs)} benchmarks in {sum(run.seconds for run in runs) / 60:.1f} minutes")
    print("failed: " + ", ".join(failed) if failed else "all benchmarks ran", flush=True)
    return 1 if failed else 0


def _runs(options: Sequence[str], names: Sequence[str]) -> Iterator[Ran]:
    for number, name in enumerate(names, start=1):
        print(f"== {name} ({number} of {len(names)})", flush=True)
        began_s, cpu_began_s = time.monotonic(), _children_cpu_s()
        command = [sys.executable, "-m", "penstock.bench", *arguments_of(name, options)]
        status = subprocess.run(command, check=False).returncode
        yield Ran(name, time.monotonic() - began_s, _children_cpu_s() - cpu_began_s, status)


def arguments_of(name: str, options: Sequence[str]) -> list[str]:
    """The command line of one benchmark of a run of all."""
    part = QUICK_PARTS.get(name) if QUICK in options else None
    return [name, *options, *(("--part", part) if part else ())]


def _children_cpu_s() -> float:
    """Processor seconds of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
