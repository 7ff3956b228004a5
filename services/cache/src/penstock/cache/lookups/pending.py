"""What the door remembers between calls: misses that are owed an answer, answers that have just
landed, hits that may be judged.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.cache.semantic.semantic_cache import Candidate
from penstock.cache.storage.entry_store import Entry

V = TypeVar("V")
REMEMBERED = 100_000
LANDED_KEPT, LANDED_S = 512, 2.0
REFRESH_S = 60.0
"""After so long a stale answer's refresh is given up, and another caller gets it."""


@dataclass
class LookupTicket:
    """A look-up: who asks for what, and, once it has missed, whose answer may come."""

    tenant: str
    key: str
    request: pb.LookUpRequest
    leads: bool = True
    """True while others that ask for the same wait for this one."""
    refreshes: bool = False
    """True where a stale answer was served, and the new one is to come."""
    scope_key: str = ""
    text: str = ""
    candidate: Candidate | None = None

    @property
    def namespace(self) -> str:
        return self.request.scope.namespace


@dataclass(frozen=True, slots=True)
class ServedAnswer:
    """A hit that a caller may still judge."""

    tenant: str
    key: str
    scope_key: str
    answer: str
    probability: float


class BoundedMap(OrderedDict[str | bytes, V], Generic[V]):
    """The latest of what was put in."""

    def __init__(self, most: int = REMEMBERED) -> None:
        super().__init__()
        self._most = most

    def put(self, key: str | bytes, value: V) -> V | None:
        """Keep; returns what had to leave for it."""
        self[key] = value
        return self.popitem(last=False)[1] if len(self) > self._most else None


class RecentAnswers:
    """Answers of leads that have ended a moment ago: a look-up that read the store just before
    finds them here.
    """

    def __init__(self) -> None:
        self._answers: BoundedMap[tuple[float, Entry]] = BoundedMap(LANDED_KEPT)

    def put(self, key: str, entry: Entry, now: float) -> None:
        """An answer has come."""
        self._answers.put(key, (now, entry))

    def get(self, key: str, now: float) -> Entry | None:
        """The answer, where it came a moment ago."""
        at, entry = self._answers.get(key, (0.0, None))
        return entry if entry is not None and now - at <= LANDED_S else None

    def forget(self, key: str) -> None:
        """It must not be served any more."""
        self._answers.pop(key, None)


class RefreshClaims:
    """Which stale answers are being fetched anew: one caller each."""

    def __init__(self) -> None:
        self._since: BoundedMap[float] = BoundedMap()

    def claim(self, key: str, now: float) -> bool:
        """True for the one who is to fetch; he owes `end`."""
        if now - self._since.get(key, -REFRESH_S) < REFRESH_S:
            return False
        self._since.put(key, now)
        return True

    def end(self, key: str) -> None:
        """The new answer has come, or none will."""
        self._since.pop(key, None)
