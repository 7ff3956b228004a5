"""Requests in flight by key: who asks for the same waits for the first one's answer.

One event loop; a failure is shared with nobody.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Leaders and followers.

    A leader must `land` once: with an answer, which all followers get, or with None, and the next
    one leads.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, deque[asyncio.Future[T | None]]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def waiting(self) -> int:
        """Followers of all leaders."""
        return sum(len(queue) for queue in self._waiting.values())

    def lead(self, key: str) -> bool:
        """True for the first of its key, who now owes a landing."""
        if key in self._waiting:
            return False
        self._waiting[key] = deque()
        return True

    async def follow(self, key: str, timeout_s: float) -> T | None:
        """The leader's answer; None makes the caller the leader.

        Raises TimeoutError when it takes too long: go on alone.
        """
        future: asyncio.Future[T | None] = asyncio.get_running_loop().create_future()
        self._waiting[key].append(future)
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        except BaseException:
            if future.done() and not future.cancelled() and future.result() is None:
                self.land(key, None)  # the lead was handed over to a caller who has gone
            raise

    def land(self, key: str, answer: T | None) -> None:
        """End a lead."""
        waiting = self._waiting.get(key)
        if waiting is None:
            return
        while waiting:
            future = waiting.popleft()
            if future.done():
                continue
            future.set_result(answer)
            if answer is None:
                return
        del self._waiting[key]
