"""Known misses: a request whose key the cache is known not to keep is not looked up, and its answer
is brought to the cache afterwards, with others that wait.

Which keys are kept is known from a summary of keys at the caller (Fan et al., "Summary Cache",
2000): a Bloom filter with two positions a key. It errs towards asking; an answer that was kept a
moment ago elsewhere may be missed and computed again. Only kinds that are cheap to repeat go by it
(docs/decisions, summary of keys).
"""

from __future__ import annotations

from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.router.requests.resolved import ResolvedRequest
from penstock.rpc.call import Call, Principal
from penstock.rpc.dispatch import split_to_fit
from penstock.rpc.errors import Fault
from penstock.rpc.peers.stream import Peer
from penstock.service.background import Background
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
STORE_TIMEOUT_S = 5.0
GATHER_S = 0.1
MAX_BATCH = 500
MAX_WAITING = 20_000
TAG_BYTES = 8
"""Of an answer inside a request, at most."""


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


class WriteBehind:
    """Owner must `close` it, which brings what waits."""

    def __init__(self, peer: Peer, clock: Clock) -> None:
        self._peer = peer
        self._clock = clock
        self._waiting: dict[Principal, tuple[Call, list[pb.Answer]]] = {}
        self._count = 0
        self._sending = False
        self._sender = Background()

    def add(self, call: Call, answer: pb.Answer) -> None:
        """Have a call's answer kept soon; dropped where too many wait, since it can be computed
        again. A batch is seen in the trace of the call that began it.
        """
        if self._count >= MAX_WAITING:
            return
        self._waiting.setdefault(call.principal, (call, []))[1].append(answer)
        self._count += 1
        if not self._sending:
            self._sending = True
            self._sender.start(self._send())

    async def _send(self) -> None:
        try:
            while self._waiting:
                await self._clock.sleep(GATHER_S)
                waiting, self._waiting, self._count = self._waiting, {}, 0
                for call, answers in waiting.values():
                    for at in range(0, len(answers), MAX_BATCH):
                        for part in split_to_fit(answers[at : at + MAX_BATCH], _bytes_of):
                            await self._store(call, pb.StoreAllRequest(answers=part))
        finally:
            self._sending = False

    async def _store(self, call: Call, request: pb.StoreAllRequest) -> None:
        timed = call._replace(deadline_s=self._clock.monotonic() + STORE_TIMEOUT_S)
        try:
            await self._peer.call("StoreAll", request, timed)
        except Fault:
            return  # a cache that is gone keeps nothing

    async def close(self) -> None:
        """Bring what waits."""
        await self._sender.finished()


def _bytes_of(answer: pb.Answer) -> int:
    return answer.ByteSize() + TAG_BYTES
