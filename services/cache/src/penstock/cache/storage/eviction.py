"""What leaves when the bytes are used up: S3-FIFO (Yang et al. 2023) weighed by saved cost a byte.

Plain; one object for each tenant.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

SMALL_SHARE = 0.1
MAX_USES = 3
GHOSTS_PER_ENTRY = 1
LOOKED_AT = 8
"""Entries at the head of a queue among which the one that saves least for its bytes leaves."""


@dataclass(slots=True)
class ResidentEntry:
    """One entry: its bytes, what a hit saves, and how often it was used of late."""

    size: int
    saved_microusd: int
    uses: int = 0

    @property
    def worth(self) -> float:
        """Saved micro-dollars a byte; uses count."""
        return (self.saved_microusd + 1) * (1 + self.uses) / self.size


class S3Fifo:
    """Keeps names within a bound of bytes.

    New names wait in a small queue; those used there, or known from before, go to the main one.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.bytes = 0
        self._small: OrderedDict[str, ResidentEntry] = OrderedDict()
        self._main: OrderedDict[str, ResidentEntry] = OrderedDict()
        self._ghosts: OrderedDict[str, None] = OrderedDict()
        self._small_bytes = 0

    def __len__(self) -> int:
        return len(self._small) + len(self._main)

    def __contains__(self, name: str) -> bool:
        return name in self._small or name in self._main

    def used(self, name: str) -> None:
        """A hit."""
        kept = self._small.get(name) or self._main.get(name)
        if kept is not None:
            kept.uses = min(kept.uses + 1, MAX_USES)

    def add(self, name: str, size: int, saved_microusd: int) -> list[str]:
        """Take a name in, or its new size; returns the names that leave for it.

        What is larger than the bound is itself returned.
        """
        self.remove(name)
        if size > self.most_bytes:
            return [name]
        kept = ResidentEntry(max(size, 1), max(saved_microusd, 0))
        if name in self._ghosts:
            del self._ghosts[name]
            self._main[name] = kept
        else:
            self._small[name] = kept
            self._small_bytes += kept.size
        self.bytes += kept.size
        gone: list[str] = []
        while self.bytes > self.most_bytes:
            gone.append(self._evict())
        return gone

    def remove(self, name: str) -> None:
        """A name has gone for another reason."""
        kept = self._small.pop(name, None)
        if kept is not None:
            self._small_bytes -= kept.size
        else:
            kept = self._main.pop(name, None)
        if kept is not None:
            self.bytes -= kept.size

    def _evict(self) -> str:
        while self._small and (self._small_bytes > SMALL_SHARE * self.most_bytes or not self._main):
            name = self._poorest(self._small)
            kept = self._small.pop(name)
            self._small_bytes -= kept.size
            if kept.uses == 0:
                self.bytes -= kept.size
                self._ghosts[name] = None
                while len(self._ghosts) > GHOSTS_PER_ENTRY * max(len(self), 16):
                    self._ghosts.popitem(last=False)
                return name
            kept.uses = 0
            self._main[name] = kept
        while True:
            name = self._poorest(self._main)
            kept = self._main[name]
            if kept.uses == 0:
                del self._main[name]
                self.bytes -= kept.size
                return name
            kept.uses -= 1
            self._main.move_to_end(name)

    @staticmethod
    def _poorest(queue: OrderedDict[str, ResidentEntry]) -> str:
        """The least worth among the oldest few that have not been used; else the oldest."""
        head = [name for name, _ in zip(queue, range(LOOKED_AT), strict=False)]
        unused = [name for name in head if queue[name].uses == 0]
        return min(unused, key=lambda name: queue[name].worth) if unused else head[0]
