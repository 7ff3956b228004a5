"""Booking what admitted calls have spent: on their leases, or by ending their holds."""

from __future__ import annotations

import logging

from penstock.api.common.v1 import common_pb2
from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.prices.prices import Prices
from penstock.router.admission.lease import Amounts
from penstock.router.admission.leases import Leases
from penstock.router.admission.limiter_calls import LimiterCalls, to_amount
from penstock.router.admission.ticket import Ticket, difference, least_of
from penstock.router.stages import Deferred, Spent
from penstock.rpc.call import Call
from penstock.service.current import Current
from penstock.service.purity import pure

log = logging.getLogger(__name__)


class Settlements:
    """Settles calls, each once."""

    def __init__(self, limiter: LimiterCalls, leases: Leases, prices: Current[Prices]) -> None:
        self._limiter = limiter
        self._leases = leases
        self._prices = prices

    def settle(
        self, ticket: Ticket, receipt: common_pb2.Receipt | None, spent: Spent | None
    ) -> Deferred:
        """Book what a call has spent; gives what has to be waited for until that is done."""
        booked = booked_amounts(self._prices.value, receipt, spent)
        if ticket.lease is not None and booked is None and not ticket.hold_id:
            return self._leases.put_back(ticket.lease, ticket.amounts)
        if ticket.lease is not None:
            from_lease = booked and least_of(booked, ticket.amounts) if ticket.hold_id else booked
            self._leases.settle(ticket.lease, ticket.amounts, from_lease)
            if not ticket.hold_id:
                return None
            booked = booked and from_lease and difference(booked, from_lease)
        call = Call(ticket.call.principal, ticket.call.priority)
        if booked is None:
            release = pb.ReleaseRequest(hold_id=ticket.hold_id, fence=ticket.fence)
            return self._release(release, call)
        commit = pb.CommitRequest(
            hold_id=ticket.hold_id,
            spent=to_amount(booked),
            fence=ticket.fence,
            model=ticket.model,
        )
        return self._commit(commit, call)

    async def _release(self, release: pb.ReleaseRequest, call: Call) -> None:
        answer: pb.ReleaseResponse | None = await self._limiter.repeat("Release", release, call)
        if answer is not None and not answer.released:
            log.warning(
                "hold %s of %s had expired or was settled before it was released; what it had to "
                "cost at least stays spent",
                release.hold_id,
                call.principal.organisation,
            )

    async def _commit(self, commit: pb.CommitRequest, call: Call) -> None:
        answer: pb.CommitResponse | None = await self._limiter.repeat("Commit", commit, call)
        if answer is not None and not answer.settled:
            log.warning(
                "hold %s of %s had expired or was settled before its call ended; what differs from "
                "%d micro-dollars was booked as an adjustment",
                commit.hold_id,
                call.principal.organisation,
                commit.spent.microusd,
            )


@pure
def booked_amounts(
    prices: Prices, receipt: common_pb2.Receipt | None, spent: Spent | None
) -> Amounts | None:
    """What a call has cost, by its receipt or by what it spent without an answer; None where it
    spent nothing.
    """
    if receipt is not None:
        usage = receipt.usage
        return 1, usage.input_tokens + usage.output_tokens, receipt.cost.paid_microusd
    if spent is None:
        return None
    tokens = spent.input_tokens + spent.output_tokens
    cost = prices.cost_bound_microusd(spent.model, spent.input_tokens, spent.output_tokens) or 0
    return 1, tokens, cost + spent.lookup_microusd
