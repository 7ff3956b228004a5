"""Publish and subscribe inside one event loop, with a bound for every subscriber.

A publisher never waits. Each subscriber has a queue of its own: an item that finds the queue full
is not delivered to that subscriber, and is counted, so that a slow subscriber can learn how many
items it missed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


def _accept_all(_: object) -> bool:
    return True


class Subscription(Generic[T]):
    """The items of one subscriber, in the order in which they were published.

    Iterate with `async for`; the iteration has no end.
    """

    def __init__(self, max_queued: int, accepts: Callable[[T], bool]) -> None:
        self._queue: asyncio.Queue[T] = asyncio.Queue(max_queued)
        self._accepts = accepts
        self._missed = 0

    def offer(self, item: T) -> None:
        """Queue an item that this subscriber accepts, or count it as missed when there is no
        room.
        """
        if not self._accepts(item):
            return
        if self._queue.full():
            self._missed += 1
        else:
            self._queue.put_nowait(item)

    def take_missed(self) -> int:
        """The number of items missed since the last call of this method."""
        missed, self._missed = self._missed, 0
        return missed

    def __aiter__(self) -> Subscription[T]:
        return self

    async def __anext__(self) -> T:
        return await self._queue.get()


class Subscribers(Generic[T]):
    """Everybody who receives what one publisher publishes.

    Args:
        max_queued: items that may wait for one subscriber.
    """

    def __init__(self, max_queued: int) -> None:
        self._max_queued = max_queued
        self._subscriptions: set[Subscription[T]] = set()

    def publish(self, item: T) -> None:
        """Offer an item to every subscriber; returns at once."""
        for subscription in self._subscriptions:
            subscription.offer(item)

    @contextlib.contextmanager
    def subscribe(self, accepts: Callable[[T], bool] = _accept_all) -> Iterator[Subscription[T]]:
        """Receive what is published inside the `with` block and for which `accepts` is true."""
        subscription = Subscription(self._max_queued, accepts)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
