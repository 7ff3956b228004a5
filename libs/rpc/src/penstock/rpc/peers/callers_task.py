"""Work of a call inside one process that its caller's own task does: no task is made for it, and
no turn of the event loop lies between the end of the work and its caller.

The work keeps the called service's context: each of its steps is run there. Where its time is up or
the endpoint closes, the task is cancelled at the place where the work waits, and the cancellation
ends as a Fault at the call (as `asyncio.timeout` does it).
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import math
from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Generic, TypeVar

from penstock.rpc.errors import Fault

T = TypeVar("T")


class InContext(Generic[T]):
    """Awaits a coroutine whose steps run in a context of their own."""

    __slots__ = ("_context", "_work")

    def __init__(self, work: Coroutine[Any, Any, T], context: contextvars.Context) -> None:
        self._work = work
        self._context = context

    def __await__(self) -> Generator[Any, Any, T]:
        run, send = self._context.run, self._work.send
        try:
            waited = run(send, None)
            while True:
                try:
                    given = yield waited
                except BaseException as error:
                    waited = run(self._work.throw, error)
                else:
                    waited = run(send, given)
        except StopIteration as end:
            result: T = end.value
            return result


class ServedCalls:
    """The calls in flight of one endpoint or peer that their callers' tasks serve."""

    def __init__(self) -> None:
        self._calls: set[ServedCall] = set()
        self._left = asyncio.Event()

    def add(self, call: ServedCall) -> None:
        """A call has begun."""
        self._calls.add(call)

    def discard(self, call: ServedCall) -> None:
        """A call has ended."""
        self._calls.discard(call)
        self._left.set()

    async def end(self, fault: Callable[[], Fault]) -> None:
        """End all calls, each with a fault of its own, and wait until they have ended."""
        for call in tuple(self._calls):
            call.end(fault)
        while self._calls:
            self._left.clear()
            await self._left.wait()


class ServedCall:
    """One call in the current task: `with ServedCall(...):` around its work.

    Args:
        groups: those that may end it.
        left_s: seconds until its time is up; infinite for no limit.
        time_up: makes the fault that it ends with then.
    """

    __slots__ = ("_cancelling", "_fault", "_groups", "_task", "_timer")

    def __init__(
        self, groups: tuple[ServedCalls, ...], left_s: float, time_up: Callable[[], Fault]
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._fault: Callable[[], Fault] | None = None
        self._groups = groups
        self._timer: asyncio.TimerHandle | None = None
        if not math.isinf(left_s):
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(left_s, functools.partial(self.end, time_up))

    def end(self, fault: Callable[[], Fault]) -> None:
        """End the call where its work waits; the first to end it says why."""
        if self._fault is None:
            self._fault = fault
            self._task.cancel()

    def __enter__(self) -> ServedCall:
        for group in self._groups:
            group.add(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for group in self._groups:
            group.discard(self)
        if self._fault is None:
            return
        others_cancel = self._task.uncancel() > self._cancelling
        if isinstance(error, asyncio.CancelledError) and not others_cancel:
            raise self._fault() from None
