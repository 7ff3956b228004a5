"""`python -m penstock.stack up | demo`: the whole of Penstock on this machine."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

from penstock.core.program import USAGE_ERROR, CannotStart, loop_factory
from penstock.stack.demo import demo, last_line
from penstock.stack.up import up
from rich.console import Console

MODEL_CARD = "models/all-MiniLM-L6-v2/1/card.json"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="penstock.stack", description="Run all of Penstock on this machine.")
    parser.add_argument(
        "--home", type=Path, default=Path(os.environ.get("PENSTOCK_HOME", ".penstock")), help="models and data"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("up", help="everything in the foreground, until Ctrl-C")
    start.add_argument(
        "--config", type=Path, default=Path("deploy/penstock.yaml"), help="keys, limits, prices and routes"
    )
    show = commands.add_parser("demo", help="the main job, end to end, with its figures")
    show.add_argument("--json", action="store_true", help="print the last line only")
    return parser


def main() -> int:
    arguments = _parser().parse_args()
    # A terminal tells its width; a pipe has none, and eighty columns cut the waterfall.
    console = Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=132)
    if not (arguments.home / MODEL_CARD).exists():
        print(f"penstock.stack: no model in {arguments.home}; run `make model`", file=sys.stderr)
        return USAGE_ERROR
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            if arguments.command == "up":
                runner.run(up(arguments.home, arguments.config, console))
            else:
                quiet = Console(quiet=True) if arguments.json else console
                print(last_line(runner.run(demo(arguments.home, quiet))), flush=True)
    except CannotStart as error:
        print(f"penstock.stack: {error}", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
