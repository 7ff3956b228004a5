"""Admission of calls of started runs: besides the limits of their caller, each holds at its run.

The limits come first, since they say how long an answer may be that its caller left open; where the
run then refuses, what they hold is given back. Calls of other runs, and of none, pass through.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from penstock.api.common.v1 import common_pb2, run_pb2
from penstock.api.limiter.v1 import runs_pb2 as pb
from penstock.prices.prices import Prices
from penstock.router.admission.lease import Amounts
from penstock.router.admission.limiter_admission import (
    ADMIT_SHARE,
    EXTEND_TOKENS,
    MAX_ADMIT_S,
)
from penstock.router.admission.limiter_calls import LimiterCalls
from penstock.router.admission.output_limit import ASSUMED_OUTPUT_TOKENS
from penstock.router.admission.run_costs import (
    costs_of_answer,
    costs_of_try,
    kind_of_answer,
)
from penstock.router.admission.ticket import sum_of
from penstock.router.requests.resolved import ResolvedRequest
from penstock.router.stages import AdmissionStage, Admitted, Deferred, Spent, perform
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault
from penstock.rpc.run_ids import may_be_started
from penstock.service.clock import Clock
from penstock.service.current import Current


@dataclass(slots=True)
class RunTicket:
    """What a call of a started run holds there, and what it holds of its caller's limits."""

    inner: Admitted
    call: Call
    hold_id: str
    model: str
    amounts: Amounts
    covered_tokens: int
    """Output tokens that the hold covers."""
    is_final: bool
    is_unpriced: bool
    kind: run_pb2.RunCostKind
    """What its answer is paid for."""


class RunAdmission:
    """The admission stage in front of another one. Owner must `close` it."""

    def __init__(
        self, inner: AdmissionStage, limiter: LimiterCalls, prices: Current[Prices], clock: Clock
    ) -> None:
        self._inner = inner
        self._limiter = limiter
        self._prices = prices
        self._clock = clock

    def admit_now(self, call: Call, request: ResolvedRequest) -> Admitted | None:
        """Let a call go on where nothing has to be waited for; None for calls of started runs.

        Raises:
            Fault: what its caller is told.
        """
        return None if may_be_started(call.run_id) else self._inner.admit_now(call, request)

    async def admit(self, call: Call, request: ResolvedRequest) -> Admitted:
        """Let a call go on.

        Raises:
            Fault: what its caller is told; the run's refusal carries the run.
        """
        admitted = await self._inner.admit(call, request)
        if not may_be_started(call.run_id):
            return admitted
        ticket = self._ticket(call, request, admitted)
        try:
            is_started = await self._hold(ticket, ticket.amounts)
        except BaseException as error:
            self._release(ticket, error)
            raise
        if not is_started:
            return admitted
        left_open = request.kind.open_ended and not request.estimate.output_tokens
        return admitted._replace(
            ticket=ticket, max_output_tokens=ticket.covered_tokens if left_open else 0
        )

    def _ticket(self, call: Call, request: ResolvedRequest, admitted: Admitted) -> RunTicket:
        estimate = request.estimate
        output = estimate.output_tokens or admitted.max_output_tokens
        if request.kind.open_ended and not output:
            output = ASSUMED_OUTPUT_TOKENS
        bound = estimate.input_bound
        cost = self._prices.value.cost_bound_microusd(request.model, bound, output)
        return RunTicket(
            admitted,
            call,
            secrets.token_hex(12),
            request.model,
            (1, bound + output, cost or 0),
            output,
            is_final=request.options.run_final,
            is_unpriced=cost is None,
            kind=kind_of_answer(request),
        )

    async def _hold(self, ticket: RunTicket, amounts: Amounts) -> bool:
        """Hold so much at the run; False where nobody has started it. Raises Fault."""
        now_s = self._clock.monotonic()
        left_s = ticket.call.remaining_s(now_s)
        hold = pb.HoldRunRequest(
            run_id=ticket.call.run_id,
            hold_id=ticket.hold_id,
            amount=_amount(amounts),
            is_final=ticket.is_final,
            is_unpriced=ticket.is_unpriced,
            step=ticket.call.step,
            model=ticket.model,
        )
        ends_s = now_s + min(MAX_ADMIT_S, ADMIT_SHARE * left_s)
        answer: pb.HoldRunResponse = await self._limiter.ask("HoldRun", hold, ticket.call, ends_s)
        return answer.started

    def _release(self, ticket: RunTicket, error: BaseException) -> None:
        """Give back what a call that does not go on may hold: whether it does is not known where
        the answer was lost. Only of a call that was never sent: it has no other settlement.
        """
        self._limiter.later(perform(self._inner.settle(ticket.inner, None, None)))
        if not (isinstance(error, Fault) and error.run is not None):
            self._limiter.later(self._settle(ticket, []))

    async def hold_more(self, admitted: Admitted, request: ResolvedRequest) -> None:
        """Let one more send of the same answer go. Raises Fault."""
        ticket = admitted.ticket
        if not isinstance(ticket, RunTicket):
            return await self._inner.hold_more(admitted, request)
        await self._inner.hold_more(ticket.inner, request)
        bound = request.estimate.input_bound
        cost = self._prices.value.cost_bound_microusd(request.model, bound, 0) or 0
        await self._enlarge(ticket, (0, bound, cost))
        return None

    async def extend(self, admitted: Admitted, output_tokens: int) -> None:
        """A stream has said so much; raises the Fault that ends it."""
        ticket = admitted.ticket
        if not isinstance(ticket, RunTicket):
            return await self._inner.extend(admitted, output_tokens)
        await self._inner.extend(ticket.inner, output_tokens)
        if output_tokens > ticket.covered_tokens:
            more = max(EXTEND_TOKENS, output_tokens - ticket.covered_tokens)
            cost = self._prices.value.cost_bound_microusd(ticket.model, 0, more) or 0
            await self._enlarge(ticket, (0, more, cost))
            ticket.covered_tokens += more
        return None

    async def _enlarge(self, ticket: RunTicket, more: Amounts) -> None:
        amounts = sum_of(ticket.amounts, more)
        await self._hold(ticket, amounts)
        ticket.amounts = amounts

    def settle(
        self, admitted: Admitted, receipt: common_pb2.Receipt | None, spent: Spent | None
    ) -> Deferred:
        """Book what a call has spent, at its caller's limits and at its run."""
        ticket = admitted.ticket
        if not isinstance(ticket, RunTicket):
            return self._inner.settle(admitted, receipt, spent)
        limits = self._inner.settle(ticket.inner, receipt, spent)
        return self._settle_both(limits, ticket, self._costs(ticket, receipt, spent))

    def _costs(
        self, ticket: RunTicket, receipt: common_pb2.Receipt | None, spent: Spent | None
    ) -> list[run_pb2.RunCost]:
        prices, step = self._prices.value, ticket.call.step
        if receipt is not None:
            return costs_of_answer(prices, receipt, ticket.kind, step)
        return costs_of_try(prices, spent, step) if spent is not None else []

    async def _settle_both(
        self, limits: Deferred, ticket: RunTicket, costs: list[run_pb2.RunCost]
    ) -> None:
        await self._settle(ticket, costs)
        await perform(limits)

    async def _settle(self, ticket: RunTicket, costs: list[run_pb2.RunCost]) -> None:
        settle = pb.SettleRunRequest(run_id=ticket.call.run_id, hold_id=ticket.hold_id, costs=costs)
        owner = Call(ticket.call.principal, ticket.call.priority)
        await self._limiter.repeat("SettleRun", settle, owner)

    async def close(self) -> None:
        """Wait for settlements under way; call after the last call has ended."""
        await self._limiter.close()


def _amount(amounts: Amounts) -> run_pb2.RunAmount:
    return run_pb2.RunAmount(calls=amounts[0], tokens=amounts[1], microusd=amounts[2])
