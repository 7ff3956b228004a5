"""One child process: started, its output passed on line by line, stopped.

The supervisor decides when; nothing here restarts anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from penstock.service.child_process import die_with_parent

LineSink = Callable[[str, str], None]
"""Takes (process name, one line of its output)."""
MAX_LINE_BYTES = 1 << 20

GRPC_EXPERIMENTS = (
    "-event_engine_client,-event_engine_listener,-event_engine_for_all_other_endpoints"
)
"""The value of the variable GRPC_EXPERIMENTS for services.

It lets the thread that waits for gRPC's completions poll the sockets itself, which saves one thread
switch a message (docs/decisions/0008-polling.md). gRPC reads it when it is imported, so the parent
process has to set it.
"""
GRPC_DEFAULTS = {"GRPC_EXPERIMENTS": GRPC_EXPERIMENTS, "GRPC_VERBOSITY": "ERROR"}
"""What gRPC reads in a service where the environment does not say otherwise."""


@dataclass(frozen=True)
class Program:
    """What to run.

    Attributes:
        name: its name in the log.
        command: the command line.
        env: variables added to the environment of this process.
        address: where it answers, for the readiness check: `host:port` of a gRPC service,
            `http://…` of a page, `redis+unix://…` of a store.
        reloads: whether it reads its configuration file again at SIGHUP.
    """

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    address: str = ""
    reloads: bool = False


def python_module(module: str) -> tuple[str, ...]:
    """The command that runs a module with this interpreter, with unbuffered output."""
    return (sys.executable, "-u", "-m", module)


class Child:
    """A running program. Its owner must await `stop`; on Linux it dies with its owner.

    Attributes:
        last_line: the last line of its output, by which a program that ends says why.
    """

    def __init__(
        self, program: Program, process: asyncio.subprocess.Process, sink: LineSink
    ) -> None:
        self.program = program
        self.last_line = ""
        self._process = process
        self._output_task = asyncio.create_task(self._forward_output(sink))

    @classmethod
    async def start(cls, program: Program, sink: LineSink) -> Child:
        """Start the program; `sink` takes its standard output and standard error."""
        process = await asyncio.create_subprocess_exec(
            *die_with_parent(program.command),
            env={**GRPC_DEFAULTS, **os.environ, **program.env},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            limit=MAX_LINE_BYTES,
        )
        return cls(program, process, sink)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    async def wait(self) -> int:
        """Wait for the end of the process and of its output; return the exit status.

        The status is negative after a signal.
        """
        status = await self._process.wait()
        await self._output_task
        return status

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def kill(self) -> None:
        """Send SIGKILL, as a crash would end it."""
        self.send(signal.SIGKILL)

    async def stop(self, grace_s: float) -> int:
        """Send SIGTERM, and SIGKILL where it still runs after `grace_s`; return the exit status."""
        self.send(signal.SIGTERM)
        try:
            return await asyncio.wait_for(self.wait(), grace_s)
        except TimeoutError:
            self.kill()
            return await self.wait()

    async def _forward_output(self, sink: LineSink) -> None:
        assert self._process.stdout is not None
        while line := await self._read_line(self._process.stdout):
            self.last_line = line.decode(errors="replace").rstrip()
            sink(self.program.name, self.last_line)

    @staticmethod
    async def _read_line(stream: asyncio.StreamReader) -> bytes:
        try:
            return await stream.readline()
        except ValueError:
            return b"(a line of more than 1 MiB was left out)\n"
