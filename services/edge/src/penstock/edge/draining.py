"""The end of a service's life: what is in flight may end, what does not is told so."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

LAST_WORDS_S = 2.0
"""Seconds in which requests that are ended may still say so; none waits for who reads nothing."""


class Draining:
    """Counts the requests in flight, and ends them when there is no more time.

    Attributes:
        has_begun: whether new requests are refused.
        is_over: whether what is still in flight is being ended.
    """

    def __init__(self) -> None:
        self.has_begun = False
        self.is_over = False
        self._work: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    @contextlib.contextmanager
    def counted(self, work: asyncio.Task[None]) -> Iterator[None]:
        """Count a request while it is served."""
        self._work.add(work)
        self._idle.clear()
        try:
            yield
        finally:
            self._work.discard(work)
            if not self._work:
                self._idle.set()

    async def drain(self, grace_s: float) -> None:
        """Refuse new requests, give those in flight their time, then end them."""
        self.has_begun = True
        try:
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
        except TimeoutError:
            self.is_over = True
            for work in list(self._work):
                work.cancel()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORDS_S):
                    await self._idle.wait()
