"""`PENSTOCK_WORKERS=2 python -m penstock.stack cell …` as a container runs it: one process to
signal, two cells below it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from penstock.service.free_ports import free_address
from penstock.stack.process import Child, Program, python_module
from penstock.stack.readiness import is_ready
from penstock.testkit.eventually import eventually

pytestmark = [pytest.mark.processes]
WAIT_S = 60


@dataclass
class Supervised:
    """The supervising process, and what it and its cells have said."""

    child: Child
    config: Path
    lines: list[str]

    def cells(self) -> set[int]:
        """The process ids of the cells."""
        return {each.pid for each in psutil.Process(self.child.pid).children(recursive=True)}

    def said(self, part: str) -> int:
        return sum(part in line for line in self.lines)


@contextlib.asynccontextmanager
async def supervised(folder: Path) -> AsyncIterator[Supervised]:
    """Two cells of a router each, which serve."""
    config, address = folder / "penstock.yaml", free_address()
    config.write_text("keys: {api: []}")
    command = (*python_module("penstock.stack"), "cell", "router")
    variables = {
        "PENSTOCK_WORKERS": "2",
        "PENSTOCK_LISTEN": address,
        "PENSTOCK_CONFIG_FILE": str(config),
        "PENSTOCK_DRAIN_S": "0",
    }
    program = Program("cells", command, variables, address)
    lines: list[str] = []
    child = await Child.start(program, lambda _, line: lines.append(line))
    started = Supervised(child, config, lines)
    try:
        await eventually(lambda: is_ready(program), WAIT_S)
        await eventually(lambda: len(started.cells()) == 2, WAIT_S)
        yield started
    finally:
        await child.stop(WAIT_S)


async def test_signals_reach_both_cells_and_one_that_dies_is_started_again(tmp_path: Path) -> None:
    async with supervised(tmp_path) as running:
        before = running.cells()
        os.kill(min(before), signal.SIGKILL)
        await eventually(lambda: running.said("ended (signal 9); restarting") == 1, WAIT_S)
        await eventually(lambda: len(running.cells() - before) == 1, WAIT_S)
        assert len(running.cells() & before) == 1

        running.config.write_text("no_such_section: 1")
        survivor = (running.cells() & before).pop()
        os.kill(running.child.pid, signal.SIGHUP)
        await eventually(lambda: running.said("no_such_section: unknown section") >= 1, WAIT_S)
        assert psutil.pid_exists(survivor)

        left = running.cells()
        os.kill(running.child.pid, signal.SIGTERM)
        assert await asyncio.wait_for(running.child.wait(), WAIT_S) == 0
        assert not any(psutil.pid_exists(pid) for pid in left)
