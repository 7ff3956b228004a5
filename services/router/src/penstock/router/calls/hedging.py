"""A second try beside a slow first one: whichever answers first is taken, the other is cancelled.

Decides nothing about when or where.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from penstock.router.stages import Admitted

T = TypeVar("T")


@dataclass
class Hedge(Generic[T]):
    """The two tries of a call, what is held for the second, and what each ended in."""

    admitted: Admitted | None = None
    """What is held for the second try; None where there is none."""
    second: asyncio.Task[T] | None = None
    first_error: BaseException | None = None

    async def watched(self, first: Awaitable[T]) -> T:
        """The first try's answer; what it raises is remembered."""
        try:
            return await first
        except BaseException as error:
            self.first_error = error
            raise

    @property
    def second_error(self) -> BaseException | None:
        """What the second try has raised; a cancellation where it was not needed."""
        if self.second is None or not self.second.done():
            return None
        return asyncio.CancelledError() if self.second.cancelled() else self.second.exception()

    @property
    def won(self) -> bool:
        """Whether the second try's answer was taken."""
        answered = self.second is not None and self.second.done() and self.second_error is None
        return answered and self.first_error is not None


async def race(
    first: Awaitable[T], delay_s: float, start_second: Callable[[], asyncio.Task[T] | None]
) -> T:
    """The first good answer of two.

    Ownership: the second try belongs to this call from its start; it has ended when this returns or
    raises.

    Args:
        delay_s: how long the first has for itself.
        start_second: starts the second try, or gives None when there shall be none.

    Raises:
        whatever the first raised, when there was no second or it failed too.
    """
    loop = asyncio.get_running_loop()
    second: asyncio.Task[T] | None = None
    scope = asyncio.timeout(None)

    def won(task: asyncio.Task[T]) -> None:
        if racing and not task.cancelled() and task.exception() is None:
            scope.reschedule(loop.time())

    def begin() -> None:
        nonlocal second
        second = start_second()
        if second is not None:
            second.add_done_callback(won)

    racing = True
    timer = loop.call_later(delay_s, begin)
    try:
        async with scope:
            try:
                return await first
            finally:
                racing = False
    except TimeoutError:
        if second is None or not scope.expired():
            raise
        return second.result()
    except Exception:
        if second is None:
            raise
        await asyncio.wait([second])
        if second.exception() is not None:
            raise
        return second.result()
    finally:
        timer.cancel()
        if second is not None:
            if not second.done():
                second.cancel()
            await asyncio.gather(second, return_exceptions=True)
