"""Calls that late binding keeps in the router until an instance is free: the more urgent class
first, within a class in order of arrival.

A waiting call owns its place until its `wait` returns; whoever was woken and does not use its turn
wakes the next.
"""

from __future__ import annotations

import asyncio
import bisect
import itertools
from dataclasses import dataclass, field

Rank = tuple[int, int]
"""Smaller goes first; a call that was woken in vain keeps its rank."""
FIRST: Rank = (-(1 << 30), 0)


@dataclass(order=True, slots=True)
class Place:
    rank: Rank
    woken: asyncio.Future[None] = field(compare=False)


class LateBindingQueue:
    """The waiting calls of each model."""

    def __init__(self) -> None:
        self._places: dict[str, list[Place]] = {}
        self._arrivals = itertools.count()

    def count(self, model: str) -> int:
        """Calls that wait for an instance of a model."""
        return len(self._places.get(model, ()))

    def ahead(self, model: str, rank: Rank) -> int:
        """Waiting calls that go before one of this rank."""
        places = self._places.get(model, [])
        return bisect.bisect_left(places, rank, key=lambda place: place.rank)

    def rank(self, priority: int) -> Rank:
        """The rank of a call that comes now."""
        return -priority, next(self._arrivals)

    async def wait(self, model: str, rank: Rank) -> None:
        """Wait for `wake`. Cancelled after having been woken, the turn goes to the next."""
        place = Place(rank, asyncio.get_running_loop().create_future())
        bisect.insort(self._places.setdefault(model, []), place)
        try:
            await place.woken
        except asyncio.CancelledError:
            if place.woken.cancelled():
                self._leave(model, place)
            else:
                self.wake(model)
            raise

    def wake(self, model: str, after: Rank = FIRST) -> None:
        """An instance of the model has room, or none will ever have: the first in order behind
        `after` is to look.
        """
        places = self._places.get(model, [])
        position = bisect.bisect_right(places, after, key=lambda place: place.rank)
        if position < len(places):
            places[position].woken.set_result(None)
            self._leave(model, places[position])

    def _leave(self, model: str, place: Place) -> None:
        places = self._places[model]
        places.remove(place)
        if not places:
            del self._places[model]
