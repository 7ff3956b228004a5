"""The end of a service's life: what is in flight may end, what does not is told so."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


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

    @contextmanager
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
            await self._idle.wait()
