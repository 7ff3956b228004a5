"""Admission through the limiter: from a lease that is here where that is possible, with a hold of
its own where it is not.

What the work of a job costs is held under the job's own id, never drawn from a lease: it may be
tried again by another router, and is charged once.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from google.protobuf.message import Message
from penstock.api.common.v1 import common_pb2
from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.prices.prices import Prices
from penstock.router.admission.lease import Amounts, Lease, SpendPath
from penstock.router.admission.leases import Leases
from penstock.router.admission.limiter_calls import LimiterCalls, LimiterUnreachable, to_amount
from penstock.router.admission.output_limit import (
    OutputLimit,
    affordable,
    check_ceiling,
    output_limit,
)
from penstock.router.admission.overdraft_journal import OverdraftJournal
from penstock.router.admission.refusals import refusal
from penstock.router.admission.returned_leases import settle_left_behind
from penstock.router.admission.settlements import Settlements
from penstock.router.admission.ticket import Demand, Ticket, sum_of
from penstock.router.requests.resolved import ResolvedRequest
from penstock.router.stages import Admitted, Deferred, Spent
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault
from penstock.rpc.peers.stream import Peer
from penstock.rpc.reasons import Reason
from penstock.service.clock import Clock
from penstock.service.current import Current

log = logging.getLogger(__name__)

ADMIT_SHARE, MAX_ADMIT_S = 0.5, 4.0
"""Part of a call's time that its admission may take, and the most of it: a store that is slow for a
moment costs waiting, not a refusal.
"""
MAX_ROUTE_CHARACTERS = 128
EXTEND_TOKENS = 256
"""A stream's hold is looked at again after so many output tokens."""
UNLIMITED = "limiter unavailable: nothing was limited"


class LimiterAdmission:
    """The admission stage of a router with a limiter. Owner must `close` it."""

    def __init__(
        self,
        peer: Peer,
        prices: Current[Prices],
        clock: Clock,
        on_loss: Literal["closed", "open"] = "closed",
        max_output_tokens: Callable[[str], int] = lambda _: 0,
        overdraft_share: float = 0.0,
        overdrafts: Path | None = None,
    ) -> None:
        """Make the stage.

        Args:
            max_output_tokens: what a model's instances say of its longest answer; 0 for nothing.
            overdraft_share: part of a lease that new calls may spend beyond it while the limiter is
                away.
            overdrafts: folder in which overdrafts are logged; None: new calls make none.
        """
        self._max_output_tokens = max_output_tokens
        self._limiter = LimiterCalls(peer, clock)
        self._journal = OverdraftJournal(overdrafts)
        self._leases = Leases(self._limiter, clock, self._journal, overdraft_share)
        self._settlements = Settlements(self._limiter, self._leases, prices)
        self._prices = prices
        self._clock = clock
        self._on_loss = on_loss

    def admit_now(self, call: Call, request: ResolvedRequest) -> Admitted | None:
        """Let a call go on from a lease that is here; None where the limiter has to be asked.

        Raises:
            Fault: what its caller is told.
        """
        return self._drawn(call, request, self._demand(call, request))

    async def admit(self, call: Call, request: ResolvedRequest) -> Admitted:
        """Let a call go on from a lease or with a hold of its own.

        Raises:
            Fault: what its caller is told.
        """
        demand = self._demand(call, request)
        return self._drawn(call, request, demand) or await self._asked(call, request, demand)

    def _demand(self, call: Call, request: ResolvedRequest) -> Demand:
        estimate, model = request.estimate, request.model
        bound, output = estimate.input_bound, estimate.output_tokens
        price = self._prices.value.cost_bound_microusd(model, bound, output)
        cost = price or 0
        check_ceiling(request.options, cost)
        path = SpendPath(call.principal, model, call.priority)
        limit, is_leasable = OutputLimit(output), request.job is None
        if request.kind.open_ended and not output:
            limit = self._limit_of(request)
            is_leasable = is_leasable and limit.tokens > 0
            cost = self._prices.value.cost_bound_microusd(model, bound, limit.tokens) or 0
        return Demand(path, (1, bound + limit.tokens, cost), price is None, limit, is_leasable)

    def _must_hold(self, request: ResolvedRequest, demand: Demand) -> bool:
        """Whether a rule of the path learns what such calls cost, and so each holds for itself."""
        return request.kind.open_ended and self._leases.expects(demand.path)

    def _limit_of(self, request: ResolvedRequest) -> OutputLimit:
        """The length of an answer that its caller left open. Raises Fault."""
        own_limit = self._max_output_tokens(request.model)
        return output_limit(request, self._prices.value, own_limit)

    def _drawn(self, call: Call, request: ResolvedRequest, demand: Demand) -> Admitted | None:
        if not demand.is_leasable or self._must_hold(request, demand):
            return None
        lease = self._leases.draw(demand.path, demand.amounts)
        return _from_lease(call, request, demand, lease) if lease is not None else None

    async def _asked(self, call: Call, request: ResolvedRequest, demand: Demand) -> Admitted:
        """Ask the limiter, and once more where its store was away."""
        now = self._clock.monotonic()
        ends_s = now + min(MAX_ADMIT_S, ADMIT_SHARE * call.remaining_s(now))
        try:
            return await self._ask(call, request, demand, ends_s)
        except LimiterUnreachable:
            if self._on_loss == "closed":
                raise
            return Admitted(notes=(UNLIMITED,))
        except Fault as fault:
            store_lost = fault.reason is Reason.LIMITS_UNAVAILABLE
            if not store_lost or self._clock.monotonic() >= ends_s:
                raise
        return await self._ask(call, request, demand, ends_s)

    async def _ask(
        self, call: Call, request: ResolvedRequest, demand: Demand, ends_s: float
    ) -> Admitted:
        if demand.is_leasable and not self._must_hold(request, demand):
            lease = await self._leases.draw_granted(
                demand.path, call, demand.amounts, unpriced=demand.unpriced, ends_s=ends_s
            )
            if lease is not None and not self._must_hold(request, demand):
                return _from_lease(call, request, demand, lease)
            if lease is not None:
                await self._leases.give_up(lease, demand.amounts)
        return await self._reserve(call, request, ends_s)

    async def _reserve(self, call: Call, request: ResolvedRequest, ends_s: float) -> Admitted:
        """Hold for this call alone. Where the caller left the length open, it is what the model
        says at most, or else what the budget affords.
        """
        left_open = request.kind.open_ended and request.estimate.output_tokens == 0
        limit = OutputLimit(request.estimate.output_tokens)
        if left_open:
            limit = self._limit_of(request)
        admitted, decision = await self._hold(call, request, limit.tokens, ends_s)
        if admitted is None and left_open and decision.max_tokens_hint > 0:
            limit = affordable(decision)
            admitted, decision = await self._hold(call, request, limit.tokens, ends_s)
        if admitted is None:
            raise refusal(decision)
        return admitted._replace(notes=(limit.note,)) if limit.note else admitted

    async def _hold(
        self, call: Call, request: ResolvedRequest, output: int, ends_s: float
    ) -> tuple[Admitted | None, pb.Decision]:
        prices, estimate, job = self._prices.value, request.estimate, request.job
        hold_id = job.hold_id(request.model) if job else secrets.token_hex(12)
        fence = job.fence if job else 0
        money = prices.cost_bound_microusd(request.model, estimate.input_bound, output)
        least = prices.cost_bound_microusd(request.model, estimate.input_tokens, 0) or 0
        amounts = (1, estimate.input_bound + output, money or 0)
        reserve = pb.ReserveRequest(
            hold_id=hold_id,
            model=request.model,
            amount=to_amount(amounts),
            least=to_amount((1, estimate.input_tokens, least)),
            output_tokens=output,
            unpriced=money is None,
            route=_route(request),
            fence=fence,
        )
        try:
            answer: pb.ReserveResponse = await self._limiter.ask("Reserve", reserve, call, ends_s)
        except BaseException:
            # Cancelled or too late: whether the hold was taken is not known, so it is given back.
            release = pb.ReleaseRequest(hold_id=hold_id, fence=fence)
            owner = Call(call.principal, call.priority)
            self._limiter.later(self._limiter.repeat("Release", release, owner))
            raise
        if answer.decision.verdict != pb.VERDICT_ALLOWED:
            return None, answer.decision
        ticket = Ticket(
            call,
            amounts,
            hold_id=hold_id,
            fence=fence,
            model=request.model,
            covered_tokens=output,
        )
        max_output_tokens = 0 if estimate.output_tokens else output
        return Admitted(ticket, max_output_tokens=max_output_tokens), answer.decision

    async def hold_more(self, admitted: Admitted, request: ResolvedRequest) -> None:
        """Hold what one more send of the same answer may cost: its input, for what it may say is
        held already. Raises the Fault that ends it.
        """
        ticket = admitted.ticket
        if not isinstance(ticket, Ticket) or (ticket.lease is None and not ticket.hold_id):
            return
        bound = request.estimate.input_bound
        more = self._prices.value.cost_bound_microusd(request.model, bound, 0) or 0
        check_ceiling(request.options, ticket.amounts[2] + ticket.beyond_lease[2] + more)
        await self._take_more(ticket, (0, bound, more))

    async def extend(self, admitted: Admitted, output_tokens: int) -> None:
        """Keep a stream's hold ahead of what it has said; raises the Fault that ends it.

        While the limiter does not answer the stream goes on, and is settled in full at its end.
        """
        ticket = admitted.ticket
        if not isinstance(ticket, Ticket) or output_tokens <= ticket.covered_tokens:
            return
        if ticket.lease is None and not ticket.hold_id:
            return
        tokens = max(EXTEND_TOKENS, output_tokens - ticket.covered_tokens)
        microusd = self._prices.value.cost_bound_microusd(ticket.model, 0, tokens)
        await self._take_more(ticket, (0, tokens, microusd or 0))
        ticket.covered_tokens += tokens

    async def _take_more(self, ticket: Ticket, more: Amounts) -> None:
        """Draw more from the call's lease, or hold it. Raises the refusal."""
        if ticket.lease is None:
            ticket.amounts = sum_of(ticket.amounts, more)
            await self._extend_hold(ticket, ticket.amounts)
        elif not ticket.hold_id and await self._leases.draw_more(ticket.lease, more):
            ticket.amounts = sum_of(ticket.amounts, more)
        else:
            ticket.beyond_lease = sum_of(ticket.beyond_lease, more)
            await self._hold_beyond_lease(ticket, ticket.beyond_lease)

    async def _extend_hold(self, ticket: Ticket, amounts: Amounts) -> None:
        extend = pb.ExtendRequest(
            hold_id=ticket.hold_id, amount=to_amount(amounts), fence=ticket.fence
        )
        await self._ask_for_more("Extend", extend, ticket.call)

    async def _hold_beyond_lease(self, ticket: Ticket, amounts: Amounts) -> None:
        """Hold what the lease does not cover of a call; a later time the same hold grows."""
        if ticket.hold_id:
            await self._extend_hold(ticket, amounts)
            return
        ticket.hold_id = secrets.token_hex(12)
        reserve = pb.ReserveRequest(
            hold_id=ticket.hold_id, model=ticket.model, amount=to_amount(amounts)
        )
        await self._ask_for_more("Reserve", reserve, ticket.call)

    async def _ask_for_more(self, method: str, request: Message, call: Call) -> None:
        """Raise the refusal of a limiter that answers."""
        with contextlib.suppress(LimiterUnreachable):
            answer = await self._limiter.ask(method, request, call)
            lost = pb.VERDICT_STORE_UNAVAILABLE
            if answer.decision.verdict not in (pb.VERDICT_ALLOWED, lost):
                raise refusal(answer.decision)

    def settle(
        self, admitted: Admitted, receipt: common_pb2.Receipt | None, spent: Spent | None
    ) -> Deferred:
        """Book what a call has spent: its receipt, or what was said before it broke, or nothing.

        Only a hold needs a call for that.
        """
        ticket = admitted.ticket
        return (
            self._settlements.settle(ticket, receipt, spent) if isinstance(ticket, Ticket) else None
        )

    async def keep(self) -> None:
        """Renew leases that are used and return those that are not, for ever."""
        await self._leases.keep()

    async def settle_left_behind(self) -> None:
        """Settle what killed processes of the same home folder had overdrawn, for ever."""
        await settle_left_behind(self._journal, self._limiter, self._clock)

    async def close(self) -> None:
        """Return every lease; call after the last settlement."""
        await self._leases.close()
        await self._limiter.close()
        self._journal.close()


def _from_lease(call: Call, request: ResolvedRequest, demand: Demand, lease: Lease) -> Admitted:
    tokens, note = demand.limit
    ticket = Ticket(call, demand.amounts, lease, model=request.model, covered_tokens=tokens)
    left_open = request.kind.open_ended and not request.estimate.output_tokens
    max_output_tokens = tokens if left_open else 0
    return Admitted(ticket, (note,) if note else (), max_output_tokens)


def _route(request: ResolvedRequest) -> str:
    """What a call is for, as far as its outputs go: its task and the model that it asked for, which
    may be `auto` or left open.
    """
    return f"{request.kind.name}/{request.options.model}"[:MAX_ROUTE_CHARACTERS]
