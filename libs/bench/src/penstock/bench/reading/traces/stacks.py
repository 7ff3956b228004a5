"""Stacks whose processes record what they enter: the one of `make up`, and services alone."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import yaml
from penstock.bench.reading.sources.tree import SourceTree
from penstock.bench.reading.traces.recording import Recorders, recorded_processes
from penstock.stack import ports
from penstock.stack.log import LogStream
from penstock.stack.plan import StackPlan
from penstock.stack.readiness import is_ready
from penstock.stack.stack import Stack, run_stack
from penstock.stack.supervisor import Supervisor
from rich.console import Console

TENANT = "reader"
CALLERS = ("first", "second")
"""Names of the tenant's API keys."""
TOKEN = "reading"


@dataclass(frozen=True)
class StackInputs:
    """The models to serve, and the sources whose functions are recorded."""

    models: Path
    tree: SourceTree


@dataclass(frozen=True)
class _Folders:
    home: Path
    config: Path
    recorders: Path


@contextlib.contextmanager
def _folders(inputs: StackInputs, config: Mapping[str, object]) -> Iterator[_Folders]:
    with (
        tempfile.TemporaryDirectory(prefix="penstock-reading-") as folder,
        tempfile.TemporaryDirectory(prefix="reading-") as recorders,
    ):
        made = _Folders(Path(folder) / "home", Path(folder) / "penstock.yaml", Path(recorders))
        made.home.mkdir()
        (made.home / "models").symlink_to(inputs.models.resolve())
        made.config.write_text(yaml.safe_dump(dict(config)))
        with recorded_processes(made.recorders):
            yield made


@contextlib.contextmanager
def _log() -> Iterator[LogStream]:
    """A log that is printed when the block fails."""
    log = LogStream(Console(stderr=True), quiet=True)
    try:
        yield log
    except BaseException:
        log.replay()
        raise


@contextlib.asynccontextmanager
async def run_whole_stack(
    inputs: StackInputs, config: Mapping[str, object]
) -> AsyncIterator[tuple[Stack, Recorders]]:
    """Start every service of `make up`, with an API key for each caller."""
    keys = {caller: f"psk-reading-{caller}" for caller in CALLERS}
    api = [
        {
            "id": caller,
            "organisation": TENANT,
            "sha256": hashlib.sha256(key.encode()).hexdigest(),
            "priority_ceiling": "critical",
        }
        for caller, key in keys.items()
    ]
    with _folders(inputs, {"keys": {"api": api}, **config}) as folders, _log() as log:
        async with run_stack(ports.free(), folders.home, folders.config, keys, log) as stack:
            stores = (stack.plan.ledger_url, stack.plan.cache_url)
            yield stack, Recorders(folders.recorders, inputs.tree, stores)


@contextlib.asynccontextmanager
async def run_programs(
    inputs: StackInputs,
    names: Collection[str],
    config: Mapping[str, object],
    env: Mapping[str, str],
) -> AsyncIterator[tuple[StackPlan, Recorders]]:
    """Start only the programs with these names, each with `env` besides its own variables."""
    with _folders(inputs, config) as folders, _log() as log:
        plan = StackPlan(ports.free(), folders.home, folders.home, folders.config, TOKEN)
        supervisor = Supervisor(log, is_ready)
        try:
            for stage in plan.stages():
                chosen = [
                    replace(one, env={**one.env, **env}) for one in stage if one.name in names
                ]
                await supervisor.start(tuple(chosen))
            yield plan, Recorders(folders.recorders, inputs.tree)
        finally:
            await supervisor.stop()
