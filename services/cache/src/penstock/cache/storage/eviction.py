"""Which entries are evicted when the limits in bytes are reached.

The policy is S3-FIFO (Yang et al. 2023, "FIFO queues are all you need for cache eviction"). A new
entry starts in a small queue. If it is used there it moves to the main queue, else it is evicted
and its name remembered as a ghost; a ghost that returns goes to the main queue at once. The main
queue gives a used entry another round.

Plain S3-FIFO evicts the oldest unused entry. Here the one with the least saving per byte among the
oldest few is evicted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

SMALL_QUEUE_SHARE = 0.1
"""Share of the bytes that the small queue may take."""
MAX_USES = 3
MIN_GHOSTS = 16
"""Ghosts that are remembered; where there are more entries, as many as entries."""
EVICTION_SAMPLE = 8
"""Oldest entries of a queue of which one is evicted."""


@dataclass(slots=True)
class QueuedEntry:
    """An entry in a queue.

    `saved_microusd` is what a hit saves; `uses` counts the hits since it was last spared.
    """

    size_bytes: int
    saved_microusd: int
    uses: int = 0

    @property
    def saving_per_byte(self) -> float:
        """Expected saving per byte, for comparison only."""
        return (self.saved_microusd + 1) * (1 + self.uses) / self.size_bytes


class S3Fifo:
    """Keeps the total size of named entries within `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.size_bytes = 0
        self._small: OrderedDict[str, QueuedEntry] = OrderedDict()
        self._main: OrderedDict[str, QueuedEntry] = OrderedDict()
        self._ghosts: OrderedDict[str, None] = OrderedDict()
        self._small_bytes = 0

    def __len__(self) -> int:
        return len(self._small) + len(self._main)

    def __contains__(self, name: str) -> bool:
        return name in self._small or name in self._main

    def record_use(self, name: str) -> None:
        """Count a hit of an entry, if it is here."""
        entry = self._small.get(name) or self._main.get(name)
        if entry is not None:
            entry.uses = min(entry.uses + 1, MAX_USES)

    def add(self, name: str, size_bytes: int, saved_microusd: int) -> list[str]:
        """Add an entry, or replace it.

        Returns the names of the entries evicted to make room; the entry's own where it is larger
        than the limit.
        """
        self.remove(name)
        if size_bytes > self.max_bytes:
            return [name]
        entry = QueuedEntry(max(size_bytes, 1), max(saved_microusd, 0))
        if name in self._ghosts:
            del self._ghosts[name]
            self._main[name] = entry
        else:
            self._small[name] = entry
            self._small_bytes += entry.size_bytes
        self.size_bytes += entry.size_bytes
        evicted: list[str] = []
        while self.size_bytes > self.max_bytes:
            evicted.append(self._evict())
        return evicted

    def remove(self, name: str) -> None:
        """Remove an entry that has left the store, if it is here."""
        entry = self._small.pop(name, None)
        if entry is not None:
            self._small_bytes -= entry.size_bytes
        else:
            entry = self._main.pop(name, None)
        if entry is not None:
            self.size_bytes -= entry.size_bytes

    def _evict(self) -> str:
        return self._evict_from_small() or self._evict_from_main()

    def _evict_from_small(self) -> str:
        """Evict an unused entry while the small queue is too large, and promote used ones; empty
        where none was evicted.
        """
        while self._small and (
            self._small_bytes > SMALL_QUEUE_SHARE * self.max_bytes or not self._main
        ):
            name = _least_valuable(self._small)
            entry = self._small.pop(name)
            self._small_bytes -= entry.size_bytes
            if entry.uses == 0:
                self.size_bytes -= entry.size_bytes
                self._remember_ghost(name)
                return name
            entry.uses = 0
            self._main[name] = entry
        return ""

    def _evict_from_main(self) -> str:
        """Evict an unused entry, and give used ones another round."""
        while True:
            name = _least_valuable(self._main)
            entry = self._main[name]
            if entry.uses == 0:
                del self._main[name]
                self.size_bytes -= entry.size_bytes
                return name
            entry.uses -= 1
            self._main.move_to_end(name)

    def _remember_ghost(self, name: str) -> None:
        self._ghosts[name] = None
        while len(self._ghosts) > max(len(self), MIN_GHOSTS):
            self._ghosts.popitem(last=False)


def _least_valuable(queue: OrderedDict[str, QueuedEntry]) -> str:
    """Of the oldest few entries the unused one with the least saving per byte, else the oldest."""
    oldest = [name for name, _ in zip(queue, range(EVICTION_SAMPLE), strict=False)]
    unused = [name for name in oldest if queue[name].uses == 0]
    if not unused:
        return oldest[0]
    return min(unused, key=lambda name: queue[name].saving_per_byte)


class ByteLimits:
    """The limits of each tenant and of all tenants together."""

    def __init__(self, tenant_bytes: int, total_bytes: int) -> None:
        self._tenant_bytes = tenant_bytes
        self._all = S3Fifo(total_bytes)
        self._tenants: dict[str, S3Fifo] = {}

    @property
    def size_bytes(self) -> int:
        """Bytes of all entries."""
        return self._all.size_bytes

    def __len__(self) -> int:
        """Number of all entries."""
        return len(self._all)

    def __contains__(self, name: str) -> bool:
        return name in self._all

    def size_of(self, tenants: Iterable[str]) -> tuple[int, int]:
        """Bytes and number of the entries of these tenants."""
        queues = [self._tenants[tenant] for tenant in tenants if tenant in self._tenants]
        return sum(queue.size_bytes for queue in queues), sum(len(queue) for queue in queues)

    def resize(self, tenant_bytes: int, total_bytes: int) -> None:
        """Change the limits; what exceeds smaller ones is evicted as further entries are added."""
        self._tenant_bytes = tenant_bytes
        self._all.max_bytes = total_bytes
        for queue in self._tenants.values():
            queue.max_bytes = tenant_bytes

    def record_use(self, tenant: str, name: str) -> None:
        """Count a hit of an entry."""
        self._of(tenant).record_use(name)
        self._all.record_use(name)

    def add(self, tenant: str, name: str, size_bytes: int, saved_microusd: int) -> list[str]:
        """Add a tenant's entry, or replace it; returns the names of the entries to evict for it."""
        evicted = self._of(tenant).add(name, size_bytes, saved_microusd)
        return evicted + self._all.add(name, size_bytes, saved_microusd)

    def remove(self, tenant: str, name: str) -> None:
        """Remove a tenant's entry that has left the store."""
        self._of(tenant).remove(name)
        self._all.remove(name)

    def _of(self, tenant: str) -> S3Fifo:
        queue = self._tenants.get(tenant)
        if queue is None:
            queue = self._tenants[tenant] = S3Fifo(self._tenant_bytes)
        return queue
