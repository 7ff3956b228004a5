"""Single flight: of concurrent calls with the same key one does the work, the others wait for it.

The first caller of a key is its leader and works; later ones follow, that is, wait. A leader that
succeeds gives its result to all followers. One that fails gives them nothing: the follower that
has waited longest becomes the leader, so no caller fails because of another's failure.

The work itself may span several calls (a look-up that misses, and the store that brings the
answer), which is why leading and finishing are separate methods rather than one that takes a
function. All use is on one event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """The keys in flight, and who waits for each.

    Owner of a key: its leader, from `begin` or from a `wait` that returns None, until it calls
    `finish` exactly once.
    """

    def __init__(self) -> None:
        self._followers: dict[str, deque[asyncio.Future[T | None]]] = {}

    def __len__(self) -> int:
        """Number of keys in flight."""
        return len(self._followers)

    @property
    def waiting_count(self) -> int:
        """Number of followers of all keys."""
        return sum(len(followers) for followers in self._followers.values())

    def begin(self, key: str) -> bool:
        """Make the caller the leader of a key; False where it has one, which can be waited for."""
        if key in self._followers:
            return False
        self._followers[key] = deque()
        return True

    async def wait(self, key: str, timeout_s: float) -> T | None:
        """Wait for the leader's result; None makes the caller the leader.

        The key must be in flight.

        Raises:
            TimeoutError: no result within `timeout_s`; the caller neither leads nor follows.
        """
        future: asyncio.Future[T | None] = asyncio.get_running_loop().create_future()
        self._followers[key].append(future)
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        except BaseException:
            if future.done() and not future.cancelled() and future.result() is None:
                # This caller was made the leader in the moment in which it left.
                self.finish(key, None)
            raise

    def finish(self, key: str, result: T | None) -> None:
        """End a leader's work: give the result to all followers, or hand the key on with None."""
        followers = self._followers.get(key)
        if followers is None:
            return
        while followers:
            future = followers.popleft()
            if future.done():
                continue
            future.set_result(result)
            if result is None:
                return
        del self._followers[key]
