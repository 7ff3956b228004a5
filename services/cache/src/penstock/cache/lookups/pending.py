"""What the cache remembers between calls: look-ups in flight, tickets for answers that may come,
and answers that have just come.

A look-up that misses gets a token, and its caller brings the answer, or word that there is none, by
`Store` with that token. Until then identical look-ups wait for it (`SingleFlight`).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.cache.lookups.semantic_lookup import SemanticResult
from penstock.cache.storage.entry_store import Entry
from penstock.service.bounded_map import BoundedMap
from penstock.service.clock import Clock
from penstock.service.single_flight import SingleFlight

MAX_TICKETS = 100_000
MAX_SERVED = 100_000
MAX_REFRESHES = 100_000
MAX_RECENT_ANSWERS = 512
RECENT_S = 2.0
REFRESH_S = 60.0
"""After so long without an answer another caller may refresh a stale entry."""
TOKEN_BYTES = 12


@dataclass(slots=True)
class Lookup:
    """A look-up in progress.

    `is_leader`: identical look-ups wait for its answer. `is_refresh`: a stale answer was served,
    and its caller fetches the new one.
    """

    tenant: str
    key: str
    request: pb.LookUpRequest
    is_leader: bool = False
    is_refresh: bool = False

    @property
    def namespace(self) -> str:
        """The caller's namespace within the tenant."""
        return self.request.scope.namespace


@dataclass(frozen=True, slots=True)
class LookupTicket:
    """What a token stands for: a look-up whose caller may bring the answer."""

    lookup: Lookup
    semantic: SemanticResult


@dataclass(frozen=True, slots=True)
class ServedAnswer:
    """A hit that its caller may still report as wrong.

    `answer` and `probability` are those of the semantic decision, where one served it.
    """

    tenant: str
    key: str
    scope_key: str
    answer: str
    probability: float


class RecentAnswers:
    """Answers that came in the last `RECENT_S` seconds, for look-ups that read the store just
    before the answer was written.
    """

    def __init__(self) -> None:
        self._answers: BoundedMap[str, tuple[float, Entry]] = BoundedMap(MAX_RECENT_ANSWERS)

    def put(self, key: str, entry: Entry, now: float) -> None:
        """Remember an answer."""
        self._answers.put(key, (now, entry))

    def get(self, key: str, now: float) -> Entry | None:
        """The answer of a key, if it came recently."""
        found = self._answers.peek(key)
        if found is None:
            return None
        came_at, entry = found
        return entry if now - came_at <= RECENT_S else None

    def remove(self, key: str) -> None:
        """Forget an answer that must not be served any more."""
        self._answers.pop(key)


class RefreshClaims:
    """Which stale entries are being refreshed: by one caller each."""

    def __init__(self) -> None:
        self._claimed_at: BoundedMap[str, float] = BoundedMap(MAX_REFRESHES)

    def claim(self, key: str, now: float) -> bool:
        """Claim the refresh of an entry; False where another caller has it."""
        claimed_at = self._claimed_at.peek(key)
        if claimed_at is not None and now - claimed_at < REFRESH_S:
            return False
        self._claimed_at.put(key, now)
        return True

    def release(self, key: str) -> None:
        """End a claim."""
        self._claimed_at.pop(key)


class PendingLookups:
    """Look-ups that have begun and whose answer has not come.

    Owner of a look-up's lead: the look-up until it ends; after a miss, whoever has its token. A
    lead ends by `finish`, also when its ticket is evicted.
    """

    def __init__(self, clock: Clock) -> None:
        self.served: BoundedMap[str, ServedAnswer] = BoundedMap(MAX_SERVED)
        """Hits by request id."""
        self._clock = clock
        self._single_flight: SingleFlight[Entry] = SingleFlight()
        self._tickets: BoundedMap[bytes, LookupTicket] = BoundedMap(MAX_TICKETS)
        self._recent_answers = RecentAnswers()
        self._refresh_claims = RefreshClaims()

    @property
    def waiting_count(self) -> int:
        """Look-ups that wait for the answer of an identical one."""
        return self._single_flight.waiting_count

    def begin(self, lookup: Lookup) -> bool:
        """Make a look-up the leader of its key; False where there is one to wait for."""
        lookup.is_leader = self._single_flight.begin(lookup.key)
        return lookup.is_leader

    async def wait(self, lookup: Lookup, timeout_s: float) -> Entry | None:
        """The answer of the leader of a look-up's key.

        None where it has none: the look-up is then the leader, or goes on alone after `timeout_s`.
        """
        try:
            entry = await self._single_flight.wait(lookup.key, timeout_s)
        except TimeoutError:
            return None
        lookup.is_leader = entry is None
        return entry

    def finish(self, lookup: Lookup, entry: Entry | None) -> None:
        """End a look-up with its answer, or with None where no answer will come."""
        if lookup.is_refresh:
            lookup.is_refresh = False
            self._refresh_claims.release(lookup.key)
        if lookup.is_leader:
            lookup.is_leader = False
            self._single_flight.finish(lookup.key, entry)
        if entry is not None:
            self._recent_answers.put(lookup.key, entry, self._clock.monotonic())

    def recent_answer(self, key: str) -> Entry | None:
        """The answer of a key, if it came a moment ago."""
        return self._recent_answers.get(key, self._clock.monotonic())

    def forget_answer(self, key: str) -> None:
        """Do not serve an answer that came a moment ago."""
        self._recent_answers.remove(key)

    def claim_refresh(self, lookup: Lookup) -> bool:
        """Let a look-up refresh its stale entry; False where another one does."""
        lookup.is_refresh = self._refresh_claims.claim(lookup.key, self._clock.monotonic())
        return lookup.is_refresh

    def issue_token(self, ticket: LookupTicket) -> bytes:
        """The token with which the answer to a look-up may be stored: the caller's own, if any."""
        token = ticket.lookup.request.token or secrets.token_bytes(TOKEN_BYTES)
        evicted = self._tickets.put(token, ticket)
        if evicted is not None:
            self.finish(evicted[1].lookup, None)
        return token

    def take_ticket(self, token: bytes) -> LookupTicket | None:
        """The ticket of a token, which is then used up; None where it is unknown."""
        return self._tickets.pop(token)
