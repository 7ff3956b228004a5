"""The deciding services in one process (a cell) against a process for each, on misses.

Two stacks that differ in nothing else take turns in rounds. CPU is that of all processes of the
stack; memory is that of a whole `make up` as a cell, with its models, at rest.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import yaml
from penstock.bench.harness.echo import EchoAddresses
from penstock.bench.harness.load import Send, closed_loop
from penstock.bench.harness.processes import (
    cpu_s,
    home_folder,
    mapped_mb,
    proportional_mb,
)
from penstock.bench.harness.report import Bound, Table
from penstock.bench.overhead.stacks import (
    KEY,
    TENANT,
    instant_stack,
    miss_of,
    processes_in,
)
from penstock.stack import ports
from penstock.stack.configuration import api_key
from penstock.stack.log import LogStream
from penstock.stack.plan import DEFAULT_MODEL
from penstock.stack.shapes import Layout
from penstock.stack.stack import Stack, run_stack
from rich.console import Console

CALLERS = 16
WARM_UP_S = 0.5
ROUNDS, SECONDS = 7, 2.0
CONFORMANCE = Path("tests/contracts/test_hop.py")
WEIGHTS = "*.onnx"
CELL_BOUNDS = {
    "cell_miss_cpu_vs_sep": Bound("<=", 0.65),
    "cell_miss_rps_vs_sep": Bound(">=", 1.4),
    "cell_miss_p50_vs_sep": Bound("<=", 0.65),
    "pss_mb_cell_stack": Bound("<=", 500),
    "conformance_failed": Bound("<=", 0),
}


class Misses(NamedTuple):
    """Misses of one stack in one round."""

    cpu_ms: float
    """CPU of all its processes for each answer, with 16 callers."""
    rps: float
    """Answers a second, with 16 callers."""
    p50_ms: float
    """Of one caller."""


@dataclass(frozen=True)
class Cells:
    """What was measured: a pair (cell, separate) for each round, and what needs no rounds."""

    rounds: list[tuple[Misses, Misses]]
    pss_mb: float
    conformance_failed: int

    def figures(self) -> dict[str, float]:
        """By name; ratios are medians over the rounds."""
        cells, separate = zip(*self.rounds, strict=True)
        medians = {
            f"{prefix}_miss_{name}": statistics.median(getattr(row, name) for row in rows)
            for prefix, rows in (("cell", cells), ("sep", separate))
            for name in Misses._fields
        }
        return {
            "cell_miss_cpu_vs_sep": self._ratio("cpu_ms"),
            "cell_miss_rps_vs_sep": self._ratio("rps"),
            "cell_miss_p50_vs_sep": self._ratio("p50_ms"),
            **medians,
            "pss_mb_cell_stack": self.pss_mb,
            "conformance_failed": self.conformance_failed,
        }

    def table(self) -> Table:
        """Every round."""
        columns = tuple(f"{side} {name}" for side in ("cell", "sep") for name in Misses._fields)
        rows = tuple((*cell, *separate) for cell, separate in self.rounds)
        return Table("misses in one process and in separate ones", columns, rows)

    def _ratio(self, name: str) -> float:
        ratios = (getattr(cell, name) / getattr(separate, name) for cell, separate in self.rounds)
        return float(statistics.median(ratios))


async def cells_against_processes(echo: EchoAddresses, *, quick: bool) -> Cells:
    """Measure both shapes, interleaved."""
    rounds, seconds = (2, 0.5) if quick else (ROUNDS, SECONDS)
    async with (
        instant_stack(echo, traced=False, shape="cell") as cell,
        instant_stack(echo, traced=False, shape="processes") as separate,
    ):
        sides = [(stack, miss_of(stack)) for stack in (cell, separate)]
        for _, send in sides:
            await closed_loop(send, CALLERS, WARM_UP_S)
        measured = []
        for number in range(rounds):
            order = sides if number % 2 else sides[::-1]
            row = {stack.plan.shape: await _misses(stack, send, seconds) for stack, send in order}
            measured.append((row["cell"], row["processes"]))
    return Cells(measured, await _pss_mb(Layout("cell")), _conformance_failed())


async def _misses(stack: Stack, send: Send, seconds: float) -> Misses:
    pids = list(processes_in(stack.plan.home))
    before_s = sum(map(cpu_s, pids))
    loaded = await closed_loop(send, CALLERS, seconds)
    used_s = sum(map(cpu_s, pids)) - before_s
    alone = await closed_loop(send, 1, seconds)
    return Misses(used_s * 1e3 / len(loaded.latencies_ms), loaded.rps, alone.p50_ms())


async def _pss_mb(layout: Layout) -> float:
    """Memory of a whole stack that serves, stores included, less the weights of its model.

    The sum of all processes' PSS counts a page that several map once, and a private copy of the
    weights once for each process that has one. Weights are taken off in the same way: what each
    process maps of the file, as its own PSS of that mapping says, and one file size for each
    instance that does not map the file, since it has read the weights into memory of its own. What
    the runtime makes of the weights beside that (packed matrices, buffers) stays in the figure.
    """
    with tempfile.TemporaryDirectory(prefix="penstock-overhead-") as name:
        home = Path(name)
        (home / "models").symlink_to(home_folder() / "models")
        config = home / "penstock.yaml"
        config.write_text(yaml.safe_dump({"keys": {"api": [api_key(TENANT, KEY)]}}))
        log = LogStream(Console(quiet=True))
        async with run_stack(ports.free(), home, config, {TENANT: KEY}, log, layout) as stack:
            await stack.wait_for_instances(DEFAULT_MODEL, stack.plan.instances, TENANT)
            pids = {*processes_in(home), *stack.supervisor.pids}
            instances = [
                child.pid
                for number in range(1, stack.plan.instances + 1)
                if (child := stack.supervisor.child(f"inference-{number}")) is not None
            ]
            files = list((home / "models" / DEFAULT_MODEL / "1").glob(WEIGHTS))
            held = (_weights_mb(pid, pid in instances, file) for pid in pids for file in files)
            return sum(map(proportional_mb, pids)) - sum(held)


def _weights_mb(pid: int, is_instance: bool, file: Path) -> float:
    """What a process holds of the weights in a file, as PSS counts it."""
    copied = file.stat().st_size / 1e6 if is_instance else 0.0
    return mapped_mb(pid, file) or copied


def _conformance_failed() -> int:
    """Tests of the conformance suite over all transports that fail, in this source tree."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        subprocess.run(
            [*command, f"--junitxml={report}", str(CONFORMANCE)],
            stdout=subprocess.DEVNULL,
            check=False,
            timeout=600,
        )
        suites = ElementTree.parse(report).getroot().iter("testsuite")
        return sum(int(each.get(kind, 0)) for each in suites for kind in ("failures", "errors"))
