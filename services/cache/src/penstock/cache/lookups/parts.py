"""What the RPCs of one cache share."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.cache.lookups.pending import PendingLookups
from penstock.cache.settings import CacheSection
from penstock.cache.statistics import CacheStatistics
from penstock.cache.storage.entry_store import EntryStore
from penstock.cache.storage.grouped_writes import GroupedWrites
from penstock.service.clock import Clock
from penstock.service.current import Current


@dataclass(frozen=True)
class CacheParts:
    """The parts, made by `build`. `key_salt` is what keys of requests are made with."""

    entries: EntryStore
    writes: GroupedWrites
    pending: PendingLookups
    statistics: CacheStatistics
    section: Current[CacheSection]
    clock: Clock
    key_salt: bytes
