"""What the cache keeps, as far as a router needs to know it: so that what is not kept is not looked
up, and is brought in batches.

A summary of keys at the caller (Fan et al., "Summary Cache", 2000): a Bloom filter with two
positions a key. It errs towards asking; an answer that was kept a moment ago elsewhere may be
missed and computed again. Only tasks that are cheap to repeat go by it.
"""

from __future__ import annotations

import asyncio

from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.rpc.call import Call, Principal
from penstock.rpc.dispatch import split_to_fit
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
REPEATABLE = frozenset({"embed", "infer"})
"""Tasks of local models, which are kept by exact key only: cheaper to repeat than to look up in
vain.
"""
NEWS_S, AGAIN_S = 0.1, 1.0
LIST_S, STORE_S = 10.0, 5.0
GATHER_S = 0.01
AT_ONCE = 500
MOST_WAITING = 20_000


class Kept:
    """The summary.

    `salt` is what keys are made with; empty until all that is kept has been told.
    """

    def __init__(self) -> None:
        self.salt = b""
        self._bits = bytearray()
        self._told = self._at_first = 0

    def whole(self, salt: bytes) -> None:
        """All that is kept has been told; what follows is news."""
        if not self.salt:
            self._at_first = self._told
        self.salt = salt

    @property
    def full(self) -> bool:
        """True when so much news was told that the summary should be made anew."""
        return bool(self.salt) and self._told > 2 * self._at_first + RENEW_AFTER

    def add(self, fingerprints: bytes) -> None:
        """Take in fingerprints, one after the other."""
        bits = self._bits = self._bits or bytearray(BITS // 8)
        for at in range(0, len(fingerprints) - FINGERPRINT_BYTES + 1, FINGERPRINT_BYTES):
            for place in _places(fingerprints[at : at + FINGERPRINT_BYTES]):
                bits[place >> 3] |= 1 << (place & 7)
            self._told += 1

    def lacks(self, key: str) -> bool:
        """True when no answer is known for a key (hexadecimal)."""
        if not self._bits:
            return True
        places = _places(bytes.fromhex(key[: 2 * FINGERPRINT_BYTES]))
        return not all(self._bits[place >> 3] & 1 << (place & 7) for place in places)


def _places(fingerprint: bytes) -> tuple[int, int]:
    number = int.from_bytes(fingerprint, "big")
    return number % BITS, (number >> 32) % BITS


def asked_for(policy: router_pb2.CachePolicy) -> bool:
    """True when a caller asks for reuse in so many words."""
    return bool(policy.namespace or policy.tags or policy.max_age_ms)


class Deposits:
    """Answers on their way to the cache without a look-up, brought together.

    Owner must `close` it.
    """

    def __init__(self, peer: Peer, clock: Clock) -> None:
        self._peer, self._clock = peer, clock
        self.kept = Kept()
        self._waiting: dict[Principal, tuple[Call, list[pb.Answer]]] = {}
        self._count = 0
        self._sender: asyncio.Task[None] | None = None
        self._follower: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to follow what is kept."""
        self._follower = asyncio.get_running_loop().create_task(self._follow())

    def unasked(
        self,
        principal: Principal,
        policy: router_pb2.CachePolicy,
        model: str,
        task: inference_pb2.Task,
    ) -> pb.Answer | None:
        """What to bring once it has its result, where a look-up would find nothing; None where the
        cache must be asked.
        """
        if not self.kept.salt or task.WhichOneof("task") not in REPEATABLE:
            return None
        body = task.SerializeToString(deterministic=True)
        key = exact_key(self.kept.salt, tenant_of(principal), policy.namespace, model, b"", body)
        if not self.kept.lacks(key):
            return None
        scope = pb.Scope(namespace=policy.namespace, model=model)
        return pb.Answer(scope=scope, task=task, tags=policy.tags, asked_for=asked_for(policy))

    def bring(self, call: Call, answer: pb.Answer) -> None:
        """Have a call's answer kept soon; dropped where too many wait, since it can be computed
        again. A batch is seen in the trace of the call that began it.
        """
        if self._count >= MOST_WAITING:
            return
        self._waiting.setdefault(call.principal, (call, []))[1].append(answer)
        self._count += 1
        if self._sender is None:
            self._sender = asyncio.get_running_loop().create_task(self._send())

    async def _send(self) -> None:
        try:
            while self._waiting:
                await self._clock.sleep(GATHER_S)
                waiting, self._waiting, self._count = self._waiting, {}, 0
                for call, answers in waiting.values():
                    for at in range(0, len(answers), AT_ONCE):
                        for part in split_to_fit(answers[at : at + AT_ONCE], _bytes_of):
                            await self._call(call, pb.StoreAllRequest(answers=part))
        finally:
            self._sender = None

    async def _call(self, call: Call, request: pb.StoreAllRequest) -> None:
        try:
            await self._peer.call(
                "StoreAll", request, call._replace(deadline_s=self._clock.monotonic() + STORE_S)
            )
        except Fault:
            return  # a cache that is gone keeps nothing

    async def _follow(self) -> None:
        while True:
            try:
                await self._learn()
            except Fault:
                self.kept = Kept()
                await self._clock.sleep(AGAIN_S)

    async def _learn(self) -> None:
        """Follow until a new summary is due; it takes the old one's place when it is whole."""
        kept, cursor = Kept(), ""
        while not kept.full:
            call = Call(deadline_s=self._clock.monotonic() + LIST_S)
            page: pb.ListKeysResponse = await self._peer.call(
                "ListKeys", pb.ListKeysRequest(cursor=cursor), call
            )
            kept.add(page.fingerprints)
            cursor = page.cursor
            if page.complete:
                kept.whole(page.salt)
                self.kept = kept
                await self._clock.sleep(NEWS_S)

    async def close(self) -> None:
        """Bring what waits, and stop."""
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.gather(self._follower, return_exceptions=True)
        if self._sender is not None:
            await self._sender


def _bytes_of(answer: pb.Answer) -> int:
    return answer.ByteSize() + 8  # and its tag and length
