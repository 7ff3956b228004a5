"""Calls to the limiter: in how much time, and what is repeated until it is done."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from typing import Any

from google.protobuf.message import Message
from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault
from penstock.rpc.peers.stream import Peer
from penstock.rpc.reasons import Reason, Verdict
from penstock.service.background import Background
from penstock.service.clock import Clock

ANSWER_S = 0.5
"""Longest wait for the limiter after a call has been admitted: renewals, extensions, settlements.
"""
SETTLE_ANSWER_S = 4.0
"""Longest wait for a settlement, which is answered when it is on the disk of the ledger's store."""
ADMIT_ANSWER_S = 2.5
"""Longest wait for one answer of the limiter during an admission; it waits for its store for at
most 2 s.
"""
AGAIN_S = (0.0, 0.2, 1.0, 5.0, 25.0)
"""Pauses before each try to settle."""


class LimiterUnreachable(Fault):
    """The limiter itself does not answer."""

    def __init__(self) -> None:
        message = "the limiter cannot be reached"
        super().__init__(Reason.LIMITS_UNAVAILABLE, message, retry_after_s=1.0)


class LimiterCalls:
    """Asks the limiter. Owner of the connection, and of what is still to be settled."""

    def __init__(self, peer: Peer, clock: Clock) -> None:
        self._peer = peer
        self._clock = clock
        self._after = Background()

    async def ask(
        self,
        method: str,
        request: Message,
        call: Call,
        admitted_by_s: float | None = None,
        answer_s: float = ANSWER_S,
    ) -> Any:
        """The limiter's answer.

        Args:
            answer_s: how long to wait for it, where no admission waits.
            admitted_by_s: when the admission that asks has to be over, where one does.

        Raises:
            LimiterUnreachable: it does not answer in time.
            Fault: what it says instead.
        """
        ends_s = self._clock.monotonic() + answer_s
        if admitted_by_s is not None:
            ends_s = min(self._clock.monotonic() + ADMIT_ANSWER_S, admitted_by_s)
        hurried = call._replace(deadline_s=min(call.deadline_s, ends_s))
        try:
            return await self._peer.call(method, request, hurried)
        except Fault as fault:
            hurry = hurried.deadline_s < call.deadline_s
            is_gone = fault.consequences.verdict is Verdict.GONE
            if is_gone or (hurry and fault.reason is Reason.DEADLINE_EXCEEDED):
                raise LimiterUnreachable from None
            raise

    async def repeat(self, method: str, request: Message, call: Call) -> Any:
        """Ask again while the limiter is away; for what is safe to repeat. None where it stays
        away: the expiry of a hold or lease is the last resort.
        """
        for pause_s in AGAIN_S:
            await self._clock.sleep(pause_s)
            with contextlib.suppress(Fault):
                return await self.ask(method, request, call, answer_s=SETTLE_ANSWER_S)
        return None

    def later(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do work beside the caller; `close` waits for it."""
        return self._after.start(work)

    async def close(self) -> None:
        """Wait for what is under way, and hang up."""
        await self._after.finished()
        await self._peer.close()


def to_amount(parts: Sequence[int]) -> pb.Amount:
    """Amounts as the limiter takes them."""
    return pb.Amount(requests=parts[0], tokens=parts[1], microusd=parts[2])
