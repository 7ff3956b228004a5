"""Telling whoever follows of each thing that happens, as it happens.

One event loop; nobody is waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Followers(Generic[T]):
    """Those who follow, each with a queue of its own of at most `most` things: one that does not
    keep up misses some.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._queues: set[asyncio.Queue[T]] = set()

    def tell(self, thing: T) -> None:
        """Hand a thing to everybody who has room for it."""
        for queue in self._queues:
            if not queue.full():
                queue.put_nowait(thing)

    async def follow(self) -> AsyncIterator[T]:
        """Things as they are told from now on, without end."""
        queue: asyncio.Queue[T] = asyncio.Queue(self._most)
        self._queues.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._queues.discard(queue)
