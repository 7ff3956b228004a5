"""`python -m penstock.bench.fresh`: run the documented commands in fresh clones, and log them.

Each demo takes minutes, each run of the tests more, and nothing else should run beside them. The
benchmark `fresh` sums the log.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from penstock.bench.fresh.campaign import measure_download, run_fresh
from penstock.bench.fresh.conditions import CONDITIONS
from penstock.bench.fresh.log import Run
from penstock.bench.harness.json_lines import append

LOG = Path("docs/benchmarks/fresh.jsonl")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="penstock.bench.fresh", description=__doc__)
    parser.add_argument("--log", type=Path, default=LOG, help="append to this file (%(default)s)")
    parser.add_argument(
        "--only", choices=["demo", "test", "download"], help="run only this command"
    )
    parser.add_argument("--condition", default="", help="run only under conditions with this word")
    return parser


def _runs(only: str | None, word: str) -> Iterator[Run]:
    conditions = [condition for condition in CONDITIONS if word in condition.name]
    if only in (None, "download"):
        yield measure_download()
    if only in (None, "demo"):
        for condition in conditions:
            yield from (run_fresh("demo", condition) for _ in range(condition.demos))
    if only in (None, "test"):
        yield from (run_fresh("test", condition) for condition in conditions if condition.tested)


def main() -> int:
    """Run the campaign; the exit status is 1 where a command failed."""
    arguments = _parser().parse_args()
    failed = 0
    for run in _runs(arguments.only, arguments.condition):
        append(arguments.log, asdict(run))
        outcome = "ok" if run.ok else "FAILED"
        amount = f"{run.megabytes:.0f} MB" if run.command == "download" else f"{run.seconds:.0f} s"
        print(f"{run.command}, {run.condition or 'empty cache'}: {outcome}, {amount}", flush=True)
        if not run.ok:
            failed += 1
            print(run.why, file=sys.stderr, flush=True)
    return min(1, failed)


if __name__ == "__main__":
    sys.exit(main())
