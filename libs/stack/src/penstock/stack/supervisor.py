"""Keeps a set of programs running: starts in order, restarts what crashes, stops all.

Decides when; `process` does it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from penstock.service.program import USAGE_ERROR, CannotStart
from penstock.stack.process import Child, LineSink, Program

Ready = Callable[[Program], Awaitable[bool]]


@dataclass(frozen=True)
class RestartPolicy:
    """How long to wait before a crashed program is started again: doubling, and back to the first
    after a calm run.
    """

    initial_s: float = 0.5
    max_s: float = 15.0
    reset_after_s: float = 30.0

    def delay_s(self, crashes: int) -> float:
        """Seconds to wait after the `crashes`-th crash in a row (1 for the first)."""
        return min(self.max_s, self.initial_s * 2.0 ** (min(crashes, 30) - 1))


class Supervisor:
    """Owns every child it started until `stop` has returned.

    One line sink takes all their output and its own remarks.
    """

    def __init__(self, sink: LineSink, ready: Ready, restart: RestartPolicy | None = None) -> None:
        self._sink = sink
        self._ready = ready
        self._restart = restart or RestartPolicy()
        self._children: dict[str, Child] = {}
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._fatal: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def child(self, name: str) -> Child | None:
        """The child that runs under this name now, if any."""
        return self._children.get(name)

    async def start(self, programs: tuple[Program, ...], timeout_s: float = 60.0) -> None:
        """Start programs that do not need each other, and wait until all are ready.

        Raises:
            CannotStart: one of them refused to start, or is not ready after `timeout_s`.
        """
        for program in programs:
            self._keepers[program.name] = asyncio.create_task(
                self._keep(program), name=f"keep {program.name}"
            )
        await asyncio.gather(*(self._wait_ready(program, timeout_s) for program in programs))

    async def wait_for_failure(self) -> str:
        """Wait until a program refuses to start; gives the reason."""
        return await asyncio.shield(self._fatal)

    async def stop_one(self, name: str, grace_s: float = 10.0) -> None:
        """Stop one program and do not start it again."""
        keeper = self._keepers.pop(name, None)
        if keeper is None:
            return
        keeper.cancel()
        await asyncio.wait([keeper])
        if child := self._children.pop(name, None):
            await child.stop(grace_s)

    async def stop(self, grace_s: float = 10.0) -> None:
        """Stop everything, the last started first; returns when no child is left."""
        for name in reversed(list(self._keepers)):
            await self.stop_one(name, grace_s)

    async def _keep(self, program: Program) -> None:
        crashes = 0
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            child = self._children[program.name] = await Child.start(program, self._sink)
            status = await child.wait()
            if status == USAGE_ERROR:
                self._give_up(
                    f"{program.name} cannot start as it is configured; its reason stands above"
                )
                return
            crashes = 1 if loop.time() - began >= self._restart.reset_after_s else crashes + 1
            delay_s = self._restart.delay_s(crashes)
            self._sink(
                "penstock",
                f"{program.name} ended ({_why(status)}); starting it again in {delay_s:g} s",
            )
            await asyncio.sleep(delay_s)

    def _give_up(self, reason: str) -> None:
        if not self._fatal.done():
            self._fatal.set_result(reason)

    async def _wait_ready(self, program: Program, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not await self._ready(program):
                    if self._fatal.done():
                        raise CannotStart(self._fatal.result())
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise CannotStart(f"{program.name} is not ready after {timeout_s:g} s") from None


def _why(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit status {status}"
