"""How every service starts: --help, settings, logging, event loop, exit codes."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

from penstock.service.large_blocks import give_back_large_blocks
from penstock.service.logs import configure
from penstock.service.open_files import allow_open_files
from penstock.service.protection import forbid_dumps, missing_protection
from penstock.service.settings import BadConfig, ServiceSettings, describe, load_settings
from penstock.service.variables import unknown_variables

S = TypeVar("S", bound=ServiceSettings)

GC_THRESHOLDS = (10_000, 20, 50)
"""New objects before a collection, and collections before one of the older generations. A request
makes hundreds of objects and leaves none, so with Python's own thresholds (700, 10, 10) a hundred
requests cause several full collections.
"""

SWITCH_INTERVAL_S = 0.0005
"""How long another thread may hold the interpreter while the event loop waits for it. The loop
lets go of it at each system call; with Python's own 5 ms a thread that encodes a second's spans for
15 ms held the loop up for 5 ms again and again.
"""

USAGE_ERROR = 2
"""Exit status when the service cannot start as it is configured: a bad key, a port in use, a
missing model.
"""


class CannotStart(Exception):
    """The service cannot start; the text says in one line what is wrong and what to do."""


def run(
    name: str, kind: type[S], serve: Callable[[S], Awaitable[None]], question: str = ""
) -> None:
    """Run a service until it is told to stop; never returns normally on an error.

    Args:
        name: the service's name, used for logs and `--help`.
        kind: its settings class; field descriptions become the help.
        serve: serves until SIGTERM or SIGINT and returns when drained.
        question: the one question the service answers, for `--help`.

    Exits with 0 after a clean stop, 2 when the configuration, an address or a model cannot be used.
    """
    _parser(name, kind, question).parse_args()
    problems = unknown_variables(os.environ)
    try:
        settings = load_settings(kind, name)
    except BadConfig as error:
        sys.exit(_refuse(name, [*problems, *error.problems]))
    problems += missing_protection(settings)
    if problems:
        sys.exit(_refuse(name, problems))
    if settings.profile == "production":
        forbid_dumps()
    configure(name, settings.profile, settings.log_level)
    sys.exit(run_main(name, serve(settings)))


def run_main(name: str, main: Awaitable[None]) -> int:
    """Run the main coroutine of a process; returns the exit status, having said on standard error
    what could not be used.
    """

    async def body() -> None:
        await main

    gc.set_threshold(*GC_THRESHOLDS)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    give_back_large_blocks()
    allow_open_files()
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(body())
    except BadConfig as error:
        return _refuse(name, error.problems)
    except CannotStart as error:
        return _refuse(name, [str(error)])
    except KeyboardInterrupt:
        pass
    return 0


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop where it exists, else the standard loop.

    Must be chosen before any grpc.aio object is made.
    """
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _refuse(name: str, problems: list[str]) -> int:
    for problem in problems:
        print(f"penstock {name}: {problem}", file=sys.stderr)
    return USAGE_ERROR


def _parser(name: str, kind: type[ServiceSettings], question: str) -> argparse.ArgumentParser:
    rows = [
        f"  {variable} (default: {default or 'none'})\n      {meaning}"
        for variable, default, meaning in describe(kind)
    ]
    return argparse.ArgumentParser(
        prog=f"python -m penstock.{name.replace('-', '_')}",
        description=f"Penstock {name}. {question}".strip(),
        epilog="environment variables:\n" + "\n".join(rows),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
