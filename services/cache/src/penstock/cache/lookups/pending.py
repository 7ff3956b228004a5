"""What the cache remembers between calls: look-ups in flight, tickets for answers that may come,
and answers that have just come.

A look-up that misses gets a token, and its caller brings the answer, or word that there is none, by
`Store` with that token. Until then identical look-ups wait for it. A caller that leaves while its
look-up runs chose the token itself and ends it at once, and its word may come before the look-up
has missed: such a token is remembered, so that nobody waits for an answer that will not come.

Single flight: of concurrent look-ups with the same key one does the work, the others wait for it.
The first caller of a key is its leader and works; later ones follow, that is, wait. A leader that
succeeds gives its result to all followers. One that fails gives them nothing: the follower that
has waited longest becomes the leader, so no caller fails because of another's failure. The work
spans several calls (a look-up that misses, and the store that brings the answer), which is why
leading and finishing are separate methods. All use is on one event loop.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.cache.lookups.semantic_lookup import SemanticResult
from penstock.cache.storage.entries import Entry
from penstock.service.bounded_map import BoundedMap
from penstock.service.clock import Clock

T = TypeVar("T")
MAX_TICKETS = 100_000
MAX_ENDED_EARLY = 10_000
MAX_SERVED = 20_000
MAX_REFRESHES = 100_000
MAX_RECENT_ANSWERS = 512
RECENT_S = 2.0
REFRESH_S = 60.0
"""After so long without an answer another caller may refresh a stale entry."""
TOKEN_BYTES = 12


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


class LookupTicket(NamedTuple):
    """What a token stands for: a look-up whose caller may bring the answer."""

    lookup: Lookup
    semantic: SemanticResult


class ServedAnswer(NamedTuple):
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
        self._ended_early: BoundedMap[bytes, None] = BoundedMap(MAX_ENDED_EARLY)
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
        """The token with which the answer to a look-up may be stored: the caller's own, if any.

        A look-up whose caller has left already ends here.
        """
        token = ticket.lookup.request.token or secrets.token_bytes(TOKEN_BYTES)
        if token in self._ended_early:
            self._ended_early.pop(token)
            self.finish(ticket.lookup, None)
            return token
        evicted = self._tickets.put(token, ticket)
        if evicted is not None:
            self.finish(evicted[1].lookup, None)
        return token

    def take_ticket(self, token: bytes) -> LookupTicket | None:
        """The ticket of a token, which is then used up; None where it is unknown, or its look-up
        still runs.
        """
        ticket = self._tickets.pop(token)
        if ticket is None:
            self._ended_early.put(token, None)
        return ticket
