"""Answers on their way to the cache without a look-up before, gathered and brought together."""

from __future__ import annotations

from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.rpc.call import Call, Principal
from penstock.rpc.dispatch import split_to_fit
from penstock.rpc.errors import Fault
from penstock.rpc.peers.stream import Peer
from penstock.service.background import Background
from penstock.service.clock import Clock

STORE_TIMEOUT_S = 5.0
GATHER_S = 0.01
MAX_BATCH = 500
MAX_WAITING = 20_000
TAG_BYTES = 8
"""Of an answer inside a request, at most."""


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
