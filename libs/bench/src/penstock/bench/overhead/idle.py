"""What a whole stack costs while nobody calls it, models and stores included."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import yaml
from penstock.bench.harness.processes import cpu_s, home_folder
from penstock.bench.harness.report import Bound
from penstock.bench.overhead.stacks import KEY, TENANT, processes_in
from penstock.stack import ports
from penstock.stack.configuration import api_key
from penstock.stack.log import LogStream
from penstock.stack.stack import run_stack
from rich.console import Console

SETTLING_S, IDLE_S = 20.0, 30.0
IDLE_BOUNDS = {"idle_cpu_share": Bound("<=", 0.02)}


async def idle_figures(*, quick: bool) -> dict[str, float]:
    """CPU of all processes that `make up` starts, as a share of one core, once they have started
    and learnt what there is; the process that started them is the benchmark's own and left out.
    """
    settling_s, seconds = (1.0, 2.0) if quick else (SETTLING_S, IDLE_S)
    with tempfile.TemporaryDirectory(prefix="penstock-idle-") as name:
        home = Path(name)
        (home / "models").symlink_to(home_folder() / "models")
        config = home / "penstock.yaml"
        config.write_text(yaml.safe_dump({"keys": {"api": [api_key(TENANT, KEY)]}}))
        log = LogStream(Console(quiet=True))
        running = run_stack(ports.free(), home, config, {TENANT: KEY}, log, chat=True)
        async with running as stack:
            await stack.wait_for_fleet()
            await asyncio.sleep(settling_s)
            pids = {*processes_in(home), *stack.supervisor.pids}
            before_s = sum(map(cpu_s, pids))
            await asyncio.sleep(seconds)
            return {"idle_cpu_share": (sum(map(cpu_s, pids)) - before_s) / seconds}
