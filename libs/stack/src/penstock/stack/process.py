"""One child process: started, its lines passed on, stopped.

What to do when it ends is decided elsewhere.
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

GRPC_EXPERIMENTS = (
    "-event_engine_client,-event_engine_listener,-event_engine_for_all_other_endpoints"
)
"""gRPC's own thread that waits for completions polls the sockets too, instead of a pool that hands
each event to it: one wake-up less for every message (docs/decisions/0021-polling.md). Read when
gRPC is imported, so that the parent sets it.
"""


@dataclass(frozen=True)
class Program:
    """What to run: a name for the log, the command, the variables added to the environment, and
    where it answers.
    """

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    address: str = ""


def python_module(module: str) -> tuple[str, ...]:
    """The command that runs a module with this interpreter, unbuffered so that lines come as they
    are written.
    """
    return (sys.executable, "-u", "-m", module)


class Child:
    """A running program.

    Its owner must await `stop`; a killed owner takes the child with it (Linux).
    """

    def __init__(
        self, program: Program, process: asyncio.subprocess.Process, sink: LineSink
    ) -> None:
        self.program = program
        self._process = process
        self._pump = asyncio.create_task(self._pass_lines(sink))

    @classmethod
    async def start(cls, program: Program, sink: LineSink) -> Child:
        process = await asyncio.create_subprocess_exec(
            *die_with_parent(program.command),
            env={"GRPC_EXPERIMENTS": GRPC_EXPERIMENTS, **os.environ, **program.env},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            limit=1 << 20,
        )
        return cls(program, process, sink)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    async def wait(self) -> int:
        """Wait for its end and for its last line; the exit status is negative after a signal."""
        status = await self._process.wait()
        await self._pump
        return status

    def kill(self) -> None:
        """End it at once, as a crash would."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def stop(self, grace_s: float) -> int:
        """Ask it to end, wait `grace_s`, then end it."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            return await asyncio.wait_for(self.wait(), grace_s)
        except TimeoutError:
            self.kill()
            return await self.wait()

    async def _pass_lines(self, sink: LineSink) -> None:
        assert self._process.stdout is not None
        while line := await self._read_line(self._process.stdout):
            sink(self.program.name, line.decode(errors="replace").rstrip())

    @staticmethod
    async def _read_line(stream: asyncio.StreamReader) -> bytes:
        try:
            return await stream.readline()
        except ValueError:
            return b"(a line of more than 1 MiB was left out)\n"
