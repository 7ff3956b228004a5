"""An asyncio event loop in virtual time: when nothing can run, time jumps to the next timer.

Everything that waits by the loop (sleeps, timeouts, `call_later`) waits in virtual time, so minutes
pass in milliseconds, and the order of events depends on nothing but the program. Nothing may wait
for the outside world: a loop without a timer and without work raises Deadlock.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
EPOCH_S = 1_767_225_600.0
"""Unix time at which a loop begins: 2026-01-01."""


class Deadlock(RuntimeError):
    """Tasks wait for each other or for the outside world, and no timer is set."""


class _JumpingSelector(selectors.DefaultSelector):  # type: ignore[valid-type, misc]  # by system
    """Moves time in place of waiting."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        ready: list[Any] = super().select(0)
        if ready:
            return ready
        if timeout is None:
            raise Deadlock("no task can run and no timer is set")
        self.now_s += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """The event loop; `time()` begins at 0."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Virtual seconds."""
        return self._jumping.now_s


class VirtualClock:
    """The clock of a virtual loop, for services."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def monotonic(self) -> float:
        """Virtual seconds."""
        return self._loop.time()

    def time(self) -> float:
        """Unix time in virtual seconds."""
        return EPOCH_S + self._loop.time()

    async def sleep(self, seconds: float) -> None:
        """Wait in virtual time."""
        await asyncio.sleep(seconds)


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in virtual time, as `asyncio.run` does in real time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
