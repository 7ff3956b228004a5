"""Ctrl-C while an answer comes."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Self


class Interruption:
    """Raises KeyboardInterrupt only where the program waits.

    Anywhere else Python would raise it too, in the middle of writing to the screen for example,
    which then shows nothing any more. A context manager for the main thread.
    """

    def __init__(self) -> None:
        self._is_pressed = False
        self._waits = False

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._pressed)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        signal.signal(signal.SIGINT, self._before)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Wait within it; raises KeyboardInterrupt, also where Ctrl-C came before."""
        self._waits = True
        try:
            if self._is_pressed:
                raise KeyboardInterrupt
            yield
        finally:
            self._waits = False

    def _pressed(self, _: int, __: FrameType | None) -> None:
        self._is_pressed = True
        if self._waits:
            raise KeyboardInterrupt
