"""`python -m penstock.stack up | demo | config | cell | redis`: all of Penstock here, or a part."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path
from typing import NoReturn

from penstock.service.default_models import missing_model
from penstock.service.profiles import PROFILES
from penstock.service.program import USAGE_ERROR, CannotStart, loop_factory
from penstock.service.settings import BadConfig
from penstock.service.store import MAX_BYTES, EmbeddedStore, StoreName
from penstock.service.variables import unknown_variables
from penstock.stack.shapes import (
    DEFAULT_LAYOUT,
    DEFAULT_SHAPE,
    SHAPES,
    Layout,
)
from penstock.stack.workers import checked_number, number_of_workers

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it: 128 and the signal's number."""
PIPE_WIDTH = 132
"""Columns where the output is no terminal: rich's default of 80 would cut the trace."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="penstock.stack", description="Run all of Penstock on this machine."
    )
    parser.add_argument(
        "--home",
        type=Path,
        default=Path(os.environ.get("PENSTOCK_HOME", ".penstock")),
        help="folder of models and data (default: $PENSTOCK_HOME, else .penstock)",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    up_command = commands.add_parser("up", help="run every service in the foreground until Ctrl-C")
    up_command.add_argument(
        "--config",
        type=Path,
        default=Path("deploy/penstock.yaml"),
        help="YAML file of keys, limits, prices, routes, instances and upstreams (default: "
        "deploy/penstock.yaml)",
    )
    _add_shape(up_command)
    up_command.add_argument(
        "--profile",
        choices=PROFILES,
        default=os.environ.get("PENSTOCK_PROFILE", DEFAULT_LAYOUT.profile),
        help="development: reflection on, every trace recorded; production: a sample of traces, "
        f"logs in JSON (default: $PENSTOCK_PROFILE, else {DEFAULT_LAYOUT.profile})",
    )
    _add_tls(up_command)
    _add_config(commands.add_parser("config", help="check the configuration file"))
    redis_command = commands.add_parser(
        "redis", help="run only one embedded store in the foreground"
    )
    redis_command.add_argument(
        "store", choices=MAX_BYTES, help="ledger: never evicts; cache: of bounded size"
    )
    redis_command.add_argument(
        "--socket", type=Path, required=True, help="path of the unix socket to serve on"
    )
    cell_command = commands.add_parser(
        "cell", help="run services in one process, configured by their own variables"
    )
    cell_command.add_argument(
        "services", help="their names with commas between: router,limiter,cache,batcher"
    )
    demo_command = commands.add_parser(
        "demo",
        help="send 400 agent requests and show the figures, a trace among them: always in the "
        "development profile",
    )
    demo_command.add_argument(
        "--json", action="store_true", help="print only the last line, a JSON object"
    )
    _add_shape(demo_command)
    _add_tls(demo_command)
    certificates = commands.add_parser("certs", help="write certificates for development")
    certificates.add_argument("--out", type=Path, default=None, help="folder (default: HOME/tls)")
    return parser


def _add_tls(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--tls",
        action="store_true",
        default=os.environ.get("PENSTOCK_TLS", "") == "1",
        help="speak TLS, mutual between services, by certificates of a development authority in "
        "HOME/tls (default: $PENSTOCK_TLS=1)",
    )


def _add_config(command: argparse.ArgumentParser) -> None:
    commands = command.add_subparsers(dest="config_command", required=True)
    check = commands.add_parser("check", help="name every fault with line and column")
    check.add_argument("file", type=Path)
    check.add_argument("--json", action="store_true", help="print one JSON object")
    commands.add_parser("schema", help="print the JSON schema, for editors")


def _add_shape(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--shape",
        choices=SHAPES,
        default=os.environ.get("PENSTOCK_SHAPE", DEFAULT_SHAPE),
        help="cell: router, limiter, cache and batcher in one process; processes: each service in "
        f"its own (default: $PENSTOCK_SHAPE, else {DEFAULT_SHAPE})",
    )
    command.add_argument(
        "--workers",
        default=os.environ.get("PENSTOCK_WORKERS", "1"),
        help="cells behind one address, with --shape cell (default: $PENSTOCK_WORKERS, else 1)",
    )


def _become_redis(home: Path, store: StoreName, socket: Path) -> NoReturn:
    """Replace this process by the store's server, so that signals reach it directly.

    Raises:
        CannotStart: no server can be found, or the folder cannot be written.
    """
    command = EmbeddedStore.of_home(home, store, socket).command()
    os.execv(command[0], command)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.command == "redis":
        _become_redis(arguments.home, arguments.store, arguments.socket.absolute())
    if arguments.command == "cell":
        return _run_cells(arguments.services, number_of_workers(os.environ))
    if arguments.command == "certs":
        return _write_certificates(arguments.out or arguments.home / "tls")
    if arguments.command == "config":
        from penstock.stack.config_command import run_config

        return run_config(arguments)
    if arguments.shape not in SHAPES:
        raise CannotStart(f"PENSTOCK_SHAPE: {arguments.shape!r} is neither cell nor processes")
    profile = arguments.profile if arguments.command == "up" else DEFAULT_LAYOUT.profile
    if profile not in PROFILES:
        raise CannotStart(f"PENSTOCK_PROFILE: {profile!r} is neither development nor production")
    layout = Layout(arguments.shape, checked_number(arguments.workers), profile)
    if problems := unknown_variables(os.environ):
        raise BadConfig(problems)
    _run_stack(arguments, layout)
    return 0


def _write_certificates(folder: Path) -> int:
    """Write an authority and certificates; raises CannotStart."""
    import datetime

    from penstock.stack.identities import write_certificates

    try:
        write_certificates(folder, datetime.datetime.now(datetime.UTC))
    except OSError as error:
        raise CannotStart(f"{error.filename}: {error.strerror}; name another folder") from None
    print(f"certificates of a development authority: {folder}")
    return 0


def _run_cells(services: str, number: int) -> int:
    """Run one cell as this process, or several below it; either imports only what it needs."""
    if number == 1:
        from penstock.stack.cell import run_cell

        return run_cell(services)
    from penstock.stack.supervise_workers import run_workers

    return run_workers(services, number)


def _run_stack(arguments: argparse.Namespace, layout: Layout) -> None:
    # Here, because a cell needs none of it: rich, the demo and its parts.
    from penstock.stack.demo import demo, result_line
    from penstock.stack.up import up
    from rich.console import Console

    if missing := missing_model(arguments.home):
        raise CannotStart(missing)
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    console = Console(highlight=False, width=width)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        if arguments.command == "up":
            runner.run(up(arguments.home, arguments.config, console, layout, tls=arguments.tls))
        else:
            progress = Console(quiet=True) if arguments.json else console
            figures = runner.run(demo(arguments.home, progress, layout, tls=arguments.tls))
            print(result_line(figures), flush=True)


def _refuse(problems: list[str]) -> int:
    for problem in problems:
        print(f"penstock.stack: {problem}", file=sys.stderr)
    return USAGE_ERROR


def main() -> int:
    """Run the command line; return the exit status."""
    try:
        return _run(_parser().parse_args())
    except BadConfig as error:
        return _refuse(error.problems)
    except CannotStart as error:
        return _refuse([str(error)])
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
