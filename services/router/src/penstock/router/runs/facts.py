"""What routers tell each other about agent runs, and the bounded queue in which that waits."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple

MAX_WAITING = 200_000
NO_LIMIT = -1

RunKey = tuple[str, str]
"""Organisation and run id."""


class Fact(NamedTuple):
    """Something new about a run."""

    organisation: str
    run_id: str
    left_ms: int = NO_LIMIT
    """Time that the run has from now on, where its deadline was set."""
    max_microusd: int = NO_LIMIT
    """What the run may spend, where that was set."""
    spent_microusd: int = 0
    """What it has spent more."""
    cancelled: bool = False


class Outbox:
    """Facts that wait to be told; the oldest are dropped where too many wait."""

    def __init__(self) -> None:
        self._facts: deque[Fact] = deque(maxlen=MAX_WAITING)
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        return len(self._facts)

    def add(self, fact: Fact) -> None:
        """Have a fact told."""
        self._facts.append(fact)
        self._filled.set()

    async def wait(self) -> None:
        """Wait until there is something to tell."""
        while not self._facts:
            self._filled.clear()
            await self._filled.wait()

    def first(self, count: int) -> list[Fact]:
        """Up to `count` facts, oldest first; they stay until `drop`."""
        return [self._facts[index] for index in range(min(len(self._facts), count))]

    def drop(self, count: int) -> None:
        """The oldest facts have been told."""
        for _ in range(count):
            self._facts.popleft()

    def clear(self) -> None:
        """Nothing that waits can be told any more."""
        self._facts.clear()
