"""The supervisor: starts programs in order, restarts those that crash, stops all of them."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from penstock.service.program import USAGE_ERROR, CannotStart
from penstock.stack.process import Child, LineSink, Program

ReadyCheck = Callable[[Program], Awaitable[bool]]
POLL_S = 0.05
LOG_NAME = "penstock"
"""The name under which the supervisor writes its own log lines."""


@dataclass(frozen=True)
class RestartPolicy:
    """How long to wait before a crashed program is started again.

    The wait doubles with every crash in a row, from `initial_s` up to `max_s`, and begins anew
    after a run of at least `reset_after_s`. All in seconds.
    """

    initial_s: float = 0.5
    max_s: float = 15.0
    reset_after_s: float = 30.0

    def delay_s(self, crashes: int) -> float:
        """Seconds to wait after the `crashes`-th crash in a row; 1 is the first."""
        return min(self.max_s, self.initial_s * 2.0 ** (min(crashes, 30) - 1))


class Supervisor:
    """Owns every process that it started until `stop` has returned.

    Args:
        sink: takes the output of all processes, and the supervisor's own lines.
        is_ready: whether a started program can be used.
        restart: how long to wait before a restart.
    """

    def __init__(
        self, sink: LineSink, is_ready: ReadyCheck, restart: RestartPolicy | None = None
    ) -> None:
        self._sink = sink
        self._is_ready = is_ready
        self._restart = restart or RestartPolicy()
        self._children: dict[str, Child] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stages: dict[str, int] = {}
        self._numbers = itertools.count()
        self._failure: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def child(self, name: str) -> Child | None:
        """The process that runs under this name now, if any."""
        return self._children.get(name)

    @property
    def pids(self) -> list[int]:
        """The process ids of all programs that run now."""
        return [child.pid for child in self._children.values()]

    def reload(self) -> None:
        """Pass SIGHUP on to those that read their configuration file again."""
        for child in self._children.values():
            if child.program.reloads:
                child.send(signal.SIGHUP)

    async def start(
        self, programs: tuple[Program, ...], timeout_s: float = 60.0, *, optional: bool = False
    ) -> None:
        """Start programs that do not need each other, and wait until all are ready.

        Args:
            optional: one that refuses its configuration, now or at a restart, is no failure of the
                whole: `wait_for_failure` does not report it.

        Raises:
            CannotStart: one of them refused to start, or is not ready after `timeout_s`.
        """
        stage = next(self._numbers)
        for program in programs:
            self._stages[program.name] = stage
            self._tasks[program.name] = asyncio.create_task(
                self._run_and_restart(program, optional), name=f"supervise {program.name}"
            )
        await asyncio.gather(*(self._wait_ready(program, timeout_s) for program in programs))

    async def wait_for_failure(self) -> str:
        """Wait until a program refuses its configuration when it is first started; return the
        reason. At a restart it is tried again, since others go on with what they have read.
        """
        return await asyncio.shield(self._failure)

    async def stop_one(self, name: str, grace_s: float = 10.0) -> None:
        """Stop one program and do not restart it."""
        self._stages.pop(name, None)
        task = self._tasks.pop(name, None)
        if task is None:
            return
        task.cancel()
        await asyncio.wait([task])
        if child := self._children.pop(name, None):
            await child.stop(grace_s)

    async def stop(self, grace_s: float = 10.0) -> None:
        """Stop everything in reverse order of starting, and at once what was started together;
        returns when no process is left.
        """
        while self._stages:
            last = max(self._stages.values())
            names = [name for name, stage in self._stages.items() if stage == last]
            await asyncio.gather(*(self.stop_one(name, grace_s) for name in names))

    async def _run_and_restart(self, program: Program, optional: bool) -> None:
        crashes, was_started = 0, False
        loop = asyncio.get_running_loop()
        while True:
            started_s = loop.time()
            child = self._children[program.name] = await Child.start(program, self._sink)
            status = await child.wait()
            if status == USAGE_ERROR and (optional or not was_started):
                if not optional:
                    self._fail(_refusal(child))
                return
            was_started = True
            ran_s = loop.time() - started_s
            crashes = 1 if ran_s >= self._restart.reset_after_s else crashes + 1
            delay_s = self._restart.delay_s(crashes)
            self._sink(
                LOG_NAME, f"{program.name} ended ({_ending(status)}); restarting in {delay_s:g} s"
            )
            await asyncio.sleep(delay_s)

    def _fail(self, reason: str) -> None:
        if not self._failure.done():
            self._failure.set_result(reason)

    async def _wait_ready(self, program: Program, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not await self._is_ready(program):
                    if self._failure.done():
                        raise CannotStart(self._failure.result())
                    if self._tasks[program.name].done():
                        raise CannotStart(_refusal(self._children[program.name]))
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise CannotStart(f"{program.name} is not ready after {timeout_s:g} s") from None


def _refusal(child: Child) -> str:
    return f"{child.program.name} did not start: {child.last_line or 'it gave no reason'}"


def _ending(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit status {status}"
