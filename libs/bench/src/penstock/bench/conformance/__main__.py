"""`python -m penstock.bench.conformance`: run unmodified clients against a gateway, and log it."""

from __future__ import annotations

import argparse
import asyncio
import sys
from dataclasses import asdict
from pathlib import Path

from penstock.bench.conformance.campaign import run_campaign
from penstock.bench.conformance.log import LOG, SuiteRun
from penstock.bench.conformance.suites import SUITES
from penstock.bench.harness.json_lines import append
from penstock.bench.harness.processes import home_folder


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="penstock.bench.conformance", description=__doc__)
    parser.add_argument("--log", type=Path, default=LOG, help="append to this file (%(default)s)")
    names = [suite.name for suite in SUITES]
    parser.add_argument("--only", choices=names, nargs="*", default=[], help="only these suites")
    return parser


def _tell(run: SuiteRun) -> None:
    left_out = sum(run.left_out.values())
    print(f"{run.suite}: {run.run} run, {run.failed} failed, {left_out} left out", flush=True)
    for reason, count in run.left_out.items():
        print(f"  left out, {count}: {reason}")
    for name in run.failures:
        print(f"  failed: {name}")


async def _campaign(log: Path, only: list[str]) -> int:
    failed = 0
    async for run in run_campaign(home_folder(), only):
        append(log, asdict(run))
        _tell(run)
        failed += run.failed
    return min(1, failed)


def main() -> int:
    """Run the campaign; the exit status is 1 where a case failed."""
    arguments = _parser().parse_args()
    return asyncio.run(_campaign(arguments.log, arguments.only))


if __name__ == "__main__":
    sys.exit(main())
