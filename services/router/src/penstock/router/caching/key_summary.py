"""Which keys have an answer at the cache, as far as a router needs to know: so that what is not
kept is not looked up.

A summary of keys at the caller (Fan et al., "Summary Cache", 2000): a Bloom filter with two
positions a key. It errs towards asking; an answer that was kept a moment ago elsewhere may be
missed and computed again. Only kinds that are cheap to repeat go by it (docs/decisions, summary of
keys).
"""

from __future__ import annotations

from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.router.requests.resolved import ResolvedRequest
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import Fault
from penstock.rpc.peers.stream import Peer
from penstock.service.clock import Clock
from penstock.tasks.answer_keys import FINGERPRINT_BYTES, exact_key, tenant_of

BITS = 1 << 25
"""4 MiB; with a million keys 0.4 % of those that are not kept are asked for."""
RENEW_AFTER = 500_000
"""New keys, and as many as there were, after which the summary is made anew, since those that left
are never taken out.
"""
FOLLOW_EVERY_S, RETRY_AFTER_S = 0.1, 1.0
LIST_TIMEOUT_S = 10.0


class KeySummary:
    """The filter.

    `salt` is what keys are made with; empty until all that is kept has been added.
    """

    def __init__(self) -> None:
        self.salt = b""
        self._bits = bytearray()
        self._added = self._added_at_first = 0

    def complete(self, salt: bytes) -> None:
        """All that is kept has been added; what follows is new."""
        if not self.salt:
            self._added_at_first = self._added
        self.salt = salt

    @property
    def is_full(self) -> bool:
        """Whether so many keys were added that the summary should be made anew."""
        return bool(self.salt) and self._added > 2 * self._added_at_first + RENEW_AFTER

    def add(self, fingerprints: bytes) -> None:
        """Add fingerprints, one after the other."""
        bits = self._bits = self._bits or bytearray(BITS // 8)
        for at in range(0, len(fingerprints) - FINGERPRINT_BYTES + 1, FINGERPRINT_BYTES):
            for position in _positions(fingerprints[at : at + FINGERPRINT_BYTES]):
                bits[position >> 3] |= 1 << (position & 7)
            self._added += 1

    def lacks(self, key: str) -> bool:
        """Whether no answer is known for a key (hexadecimal)."""
        if not self._bits:
            return True
        positions = _positions(bytes.fromhex(key[: 2 * FINGERPRINT_BYTES]))
        return not all(self._bits[position >> 3] & 1 << (position & 7) for position in positions)


class SummaryFollower:
    """Keeps a summary up to date by following the cache's list of keys."""

    def __init__(self, peer: Peer, clock: Clock) -> None:
        self._peer = peer
        self._clock = clock
        self._summary = KeySummary()

    def is_known_missing(self, principal: Principal, request: ResolvedRequest) -> bool:
        """Whether a look-up would find nothing, and finding that out is dearer than computing."""
        salt = self._summary.salt
        if not salt or not request.kind.cheap:
            return False
        namespace = request.options.cache.namespace
        body = request.task.SerializeToString(deterministic=True)
        key = exact_key(salt, tenant_of(principal), namespace, request.model, b"", body)
        return self._summary.lacks(key)

    async def follow(self) -> None:
        """Follow for ever; while the cache is away, every key is asked for."""
        while True:
            try:
                await self._follow_one()
            except Fault:
                self._summary = KeySummary()
                await self._clock.sleep(RETRY_AFTER_S)

    async def _follow_one(self) -> None:
        """Follow until a new summary is due; it takes the old one's place when it is complete."""
        summary, cursor = KeySummary(), ""
        while not summary.is_full:
            call = Call(deadline_s=self._clock.monotonic() + LIST_TIMEOUT_S)
            page: pb.ListKeysResponse = await self._peer.call(
                "ListKeys", pb.ListKeysRequest(cursor=cursor), call
            )
            summary.add(page.fingerprints)
            cursor = page.cursor
            if page.complete:
                summary.complete(page.salt)
                self._summary = summary
                await self._clock.sleep(FOLLOW_EVERY_S)


def _positions(fingerprint: bytes) -> tuple[int, int]:
    number = int.from_bytes(fingerprint, "big")
    return number % BITS, (number >> 32) % BITS
