"""Documented calls: every `grpcurl` line of the READMEs and guides, run by the real grpcurl.

Each line runs in a shell as a reader has it after `make up`: with the development key, the internal
token's file and reflection, against a stack on free ports whose addresses stand in for the
documented ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from penstock.bench.harness.options import Options
from penstock.bench.harness.processes import home_folder
from penstock.bench.harness.report import Bound, Result, Table
from penstock.service.program import loop_factory
from penstock.stack import ports
from penstock.stack.log import LogStream
from penstock.stack.stack import run_stack
from penstock.stack.up import DEVELOPMENT_KEY, TENANT
from penstock.testkit.documented_calls import (
    DocumentedCall,
    Outcome,
    documented_calls,
    run_documented_calls,
)
from rich.console import Console

ROOT = Path(__file__).parents[6]
NEEDS_MODELS = True
BOUNDS = {"grpcurl_lines_failed": Bound("<=", 0)}


def run(options: Options) -> Result:
    """Run all lines; quick: only the first."""
    outcomes = run_all_lines(options.quick)
    figures = {"grpcurl_lines_failed": count_failed(outcomes), "grpcurl_lines": len(outcomes)}
    rows = tuple(
        (outcome.call.page, outcome.call.line.rpartition(" ")[2], _verdict(outcome))
        for outcome in outcomes
    )
    table = Table("Lines", ("page", "method", "outcome"), rows)
    return Result(figures, BOUNDS, {}, (table,), exact=frozenset(figures))


def run_all_lines(quick: bool = False) -> list[Outcome]:
    """Start a stack and run every documented line against it; quick: only the first."""
    calls = list(documented_calls(ROOT))[: 1 if quick else None]
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_outcomes(calls))


def count_failed(outcomes: Sequence[Outcome]) -> int:
    """How many lines did not do what their page says."""
    return sum(outcome.status != 0 for outcome in outcomes)


def _verdict(outcome: Outcome) -> str:
    return "answered" if outcome.status == 0 else " ".join(outcome.output.split())


async def _outcomes(calls: Sequence[DocumentedCall]) -> list[Outcome]:
    with tempfile.TemporaryDirectory(prefix="penstock-documented-") as name:
        folder = Path(name)
        async with documented_stack(folder, home_folder()) as addresses:
            return await run_documented_calls(calls, folder, addresses)


@contextlib.asynccontextmanager
async def documented_stack(folder: Path, home: Path) -> AsyncIterator[Mapping[str, str]]:
    """A stack as the pages assume it; yields the real address for each documented one.

    Args:
        folder: where the lines run; the stack's data is in `.penstock` below it.
        home: folder whose models are used.
    """
    data = folder / ".penstock"
    data.mkdir()
    (data / "models").symlink_to(home / "models")
    config = ROOT / "deploy" / "penstock.yaml"
    log, keys = LogStream(Console(quiet=True)), {TENANT: DEVELOPMENT_KEY}
    async with run_stack(ports.free(), data, config, keys, log, chat=True) as stack:
        await stack.wait_for_fleet()
        shown = ports.documented()
        yield {shown[name]: stack.addresses[name] for name in shown}
