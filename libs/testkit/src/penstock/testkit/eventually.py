"""Wait until something becomes true by itself, instead of sleeping for a guessed time.

A check is evaluated again and again until it holds or the time is up. It holds when it raises no
AssertionError and returns nothing falsy. A function of assertions returns None, which counts as
holding; a lambda's None is a value like any other (`lambda: known.get(key)`) and does not.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

T = TypeVar("T")
TIMEOUT_S = 10.0
"""Long enough for a busy machine; a check that holds takes only as long as it needs."""
EVERY_S = 0.02


@overload
async def eventually(
    check: Callable[[], Awaitable[T]],
    timeout_s: float = TIMEOUT_S,
    *,
    every_s: float = EVERY_S,
    not_yet: tuple[type[Exception], ...] = (),
) -> T: ...


@overload
async def eventually(
    check: Callable[[], T],
    timeout_s: float = TIMEOUT_S,
    *,
    every_s: float = EVERY_S,
    not_yet: tuple[type[Exception], ...] = (),
) -> T: ...


async def eventually(
    check: Callable[[], Awaitable[T] | T],
    timeout_s: float = TIMEOUT_S,
    *,
    every_s: float = EVERY_S,
    not_yet: tuple[type[Exception], ...] = (),
) -> T:
    """Evaluate `check`, a function or a coroutine function, until it holds; return its value.

    Args:
        check: what must become true.
        timeout_s: how long to wait. The check is evaluated at least once, and no evaluation is cut
            short.
        every_s: the pause between two evaluations.
        not_yet: exceptions that mean "does not hold yet", besides AssertionError.

    Raises:
        AssertionError: the check did not hold in time; the message says how it failed last.
        Exception: any other exception of the check, at once.
    """
    wait = _Wait(check, timeout_s)
    passing: tuple[type[Exception], ...] = (AssertionError, *not_yet)
    while True:
        try:
            made = check()
            value: T = await made if inspect.isawaitable(made) else made
        except passing as failure:
            wait.failed(failure)
        else:
            if wait.holds(value):
                return value
        await asyncio.sleep(every_s)


def eventually_sync(
    check: Callable[[], T],
    timeout_s: float = TIMEOUT_S,
    *,
    every_s: float = EVERY_S,
    not_yet: tuple[type[Exception], ...] = (),
) -> T:
    """Do what `eventually` does, for tests without an event loop."""
    wait = _Wait(check, timeout_s)
    passing: tuple[type[Exception], ...] = (AssertionError, *not_yet)
    while True:
        try:
            value = check()
        except passing as failure:
            wait.failed(failure)
        else:
            if wait.holds(value):
                return value
        time.sleep(every_s)


class _Wait:
    """Counts evaluations, and raises the last failure once the time is up."""

    def __init__(self, check: Callable[[], object], timeout_s: float) -> None:
        self._name = getattr(check, "__qualname__", repr(check))
        self._is_lambda = self._name.endswith("<lambda>")
        self._timeout_s = timeout_s
        self._ends_s = time.monotonic() + timeout_s
        self._evaluations = 0

    def holds(self, value: object) -> bool:
        """Whether a returned value ends the wait.

        Raises:
            AssertionError: it does not, and the time is up.
        """
        if value or (value is None and not self._is_lambda):
            return True
        self._check_time(f"it returned {value!r}", None)
        return False

    def failed(self, failure: Exception) -> None:
        """Take note that the check raised.

        Raises:
            AssertionError: the time is up.
        """
        self._check_time(f"{type(failure).__name__}: {failure}", failure)

    def _check_time(self, last: str, cause: Exception | None) -> None:
        self._evaluations += 1
        if time.monotonic() >= self._ends_s:
            raise AssertionError(
                f"{self._name} did not hold within {self._timeout_s:g} s"
                f" ({self._evaluations} evaluations); at last: {last}"
            ) from cause
