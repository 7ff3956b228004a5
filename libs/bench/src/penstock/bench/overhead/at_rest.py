"""A whole `make up` as a cell, at rest: its memory, and the CPU that it takes while nobody calls.

Each start is a round of its own, since what a process holds is decided as it starts; the rounds of
the CPU are consecutive spans of one start.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import yaml
from penstock.bench.harness.intervals import bootstrap, medians
from penstock.bench.harness.parts import Part
from penstock.bench.harness.processes import (
    cpu_s,
    home_folder,
    mapped_mb,
    program_of,
    proportional_mb,
)
from penstock.bench.harness.report import Bound, Table
from penstock.bench.overhead.stacks import KEY, TENANT, processes_of
from penstock.stack import ports
from penstock.stack.configuration import api_key
from penstock.stack.log import LogStream
from penstock.stack.plan import DEFAULT_MODEL
from penstock.stack.stack import WholeStack, run_stack
from rich.console import Console

STARTS = 7
SETTLING_S, SPANS, SPAN_S = 20.0, 10, 6.0
WEIGHTS = "*.onnx"
MEMORY_BOUNDS = {"pss_mb_cell_stack": Bound("<=", 400)}
IDLE_BOUNDS = {"idle_cpu_share": Bound("<=", 0.02)}


async def measure_memory(*, quick: bool) -> Part:
    """Memory of a stack that serves, less the weights of its model, over several starts."""
    rows = []
    for _ in range(1 if quick else STARTS):
        async with whole_stack(chat=False) as stack:
            rows.append({"pss_mb_cell_stack": _pss_mb(stack)})
    return Part(medians(rows), intervals=bootstrap(rows, medians, "starts"))


async def measure_idle(*, quick: bool) -> Part:
    """CPU of all processes as a share of one core, once they have started and learnt what there is;
    the process that started them is the benchmark's own and left out.
    """
    settling_s, spans, span_s = (1.0, 2, 1.0) if quick else (SETTLING_S, SPANS, SPAN_S)
    async with whole_stack(chat=True) as stack:
        await asyncio.sleep(settling_s)
        rows = [await _shares(stack, span_s) for _ in range(spans)]
    figures = [{"idle_cpu_share": sum(row.values())} for row in rows]
    table = Table(
        "CPU at rest by process, share of one core",
        tuple(rows[0]),
        tuple(tuple(row.values()) for row in rows),
    )
    intervals = bootstrap(figures, medians, f"spans of {span_s:g} s")
    return Part(medians(figures), tables=(table,), intervals=intervals)


@contextlib.asynccontextmanager
async def whole_stack(*, chat: bool) -> AsyncIterator[WholeStack]:
    """What `make up` starts, in a folder of its own, once every instance serves."""
    with tempfile.TemporaryDirectory(prefix="penstock-at-rest-") as name:
        home = Path(name)
        (home / "models").symlink_to(home_folder() / "models")
        config = home / "penstock.yaml"
        config.write_text(yaml.safe_dump({"keys": {"api": [api_key(TENANT, KEY)]}}))
        log = LogStream(Console(quiet=True))
        running = run_stack(ports.free(), home, config, {TENANT: KEY}, log, chat=chat)
        async with running as stack:
            await stack.wait_for_fleet()
            yield stack


async def _shares(stack: WholeStack, seconds: float) -> dict[str, float]:
    """CPU of each process in that time, as a share of one core."""
    pids = processes_of(stack)
    before_s = [cpu_s(pid) for pid in pids]
    await asyncio.sleep(seconds)
    return {
        f"{program_of(pid)} ({pid})": (cpu_s(pid) - began_s) / seconds
        for pid, began_s in zip(pids, before_s, strict=True)
    }


def _pss_mb(stack: WholeStack) -> float:
    """The sum of all processes' PSS, stores included, less the weights.

    It counts a page that several map once, and a private copy of the weights once for each process
    that has one. Weights are taken off in the same way: what each process maps of the file, as its
    own PSS of that mapping says, and one file size for each instance that does not map the file,
    since it has read the weights into memory of its own. What the runtime makes of the weights
    beside that (packed matrices, buffers) stays in the figure.
    """
    pids = processes_of(stack)
    instances = [
        child.pid
        for number in range(1, stack.plan.instances + 1)
        if (child := stack.supervisor.child(f"inference-{number}")) is not None
    ]
    files = list((stack.plan.home / "models" / DEFAULT_MODEL / "1").glob(WEIGHTS))
    held = (_weights_mb(pid, pid in instances, file) for pid in pids for file in files)
    return sum(map(proportional_mb, pids)) - sum(held)


def _weights_mb(pid: int, is_instance: bool, file: Path) -> float:
    """What a process holds of the weights in a file, as PSS counts it."""
    copied = file.stat().st_size / 1e6 if is_instance else 0.0
    return mapped_mb(pid, file) or copied
