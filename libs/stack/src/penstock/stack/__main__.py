"""`python -m penstock.stack up | demo | redis`: the whole of Penstock on this machine."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path
from typing import NoReturn

from penstock.service.program import USAGE_ERROR, CannotStart, loop_factory
from penstock.service.settings import BadConfig
from penstock.service.store import EmbeddedStore
from penstock.stack.demo import demo, last_line
from penstock.stack.up import up
from rich.console import Console

MODEL_CARD = "models/all-MiniLM-L6-v2/1/card.json"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="penstock.stack", description="Run all of Penstock on this machine."
    )
    parser.add_argument(
        "--home",
        type=Path,
        default=Path(os.environ.get("PENSTOCK_HOME", ".penstock")),
        help="models and data",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("up", help="everything in the foreground, until Ctrl-C")
    start.add_argument(
        "--config",
        type=Path,
        default=Path("deploy/penstock.yaml"),
        help="keys, limits, prices and routes",
    )
    store = commands.add_parser(
        "redis", help="the embedded Redis alone, in the foreground, for a stack that others run"
    )
    store.add_argument("--socket", type=Path, required=True, help="unix socket to serve on")
    show = commands.add_parser("demo", help="the main job, end to end, with its figures")
    show.add_argument("--json", action="store_true", help="print the last line only")
    return parser


def _become_redis(data: Path, socket: Path) -> NoReturn:
    """Replace this process by the server, so that signals are its own.

    Raises:
        CannotStart: no server can be found, or the folder cannot be written.
    """
    try:
        data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotStart(
            f"{data}: {error.strerror}; name a folder that can be written by PENSTOCK_HOME"
        ) from None
    command = EmbeddedStore(data.resolve(), socket).command()
    os.execv(command[0], command)


def _refuse(problems: list[str]) -> int:
    for problem in problems:
        print(f"penstock.stack: {problem}", file=sys.stderr)
    return USAGE_ERROR


def main() -> int:
    arguments = _parser().parse_args()
    try:
        if arguments.command == "redis":
            _become_redis(arguments.home / "redis" / "ledger", arguments.socket.absolute())
        if not (arguments.home / MODEL_CARD).exists():
            raise CannotStart(f"no model in {arguments.home}; run `make model`")
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            # A terminal tells its width; a pipe has none, and eighty columns cut the waterfall.
            console = (
                Console(highlight=False)
                if sys.stdout.isatty()
                else Console(highlight=False, width=132)
            )
            if arguments.command == "up":
                runner.run(up(arguments.home, arguments.config, console))
            else:
                quiet = Console(quiet=True) if arguments.json else console
                print(last_line(runner.run(demo(arguments.home, quiet))), flush=True)
    except BadConfig as error:
        return _refuse(error.problems)
    except CannotStart as error:
        return _refuse([str(error)])
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
