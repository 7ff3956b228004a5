"""What a call holds of the limits: every send that may be billed is admitted before it leaves,
whichever model it goes to, and the caller's ceiling holds for the sum.

One hold is at hand at a time. It serves several tries while nothing was billed; what may have been
billed is booked, and the next send is admitted anew. Ownership: a hold belongs to this object from
its admission until it is settled, exactly once.
"""

from __future__ import annotations

import asyncio

from penstock.api.common.v1 import common_pb2
from penstock.prices.prices import Prices
from penstock.router.calls.state import CallState
from penstock.router.requests.resolved import ResolvedRequest, Task, with_ceiling_less
from penstock.router.requests.token_counts import TokenCounts
from penstock.router.stages import AdmissionStage, Admitted, Deferred, Spent
from penstock.rpc.errors import Fault
from penstock.service.background import Background
from penstock.service.current import Current

SETTLED_WITHIN_S = 0.5
"""Longest wait for the end of one hold before the next is asked for."""


class Holds:
    """Admits and settles the sends of calls."""

    def __init__(
        self,
        admission: AdmissionStage,
        prices: Current[Prices],
        counts: TokenCounts,
        background: Background,
    ) -> None:
        self._admission = admission
        self._counts = counts
        self._prices = prices
        self._after = background

    async def admit(self, state: CallState) -> None:
        """Hold what the call may cost on its present model; where that is refused, on the next of
        its models that may serve it.

        Raises:
            Fault: the last refusal.
        """
        while True:
            try:
                return await self._admit(state)
            except Fault as refusal:
                if not (refusal.consequences.other_model and state.spare_models):
                    raise
                state.go_on_with(state.spare_models.pop(0), refusal)

    async def renew(self, state: CallState, spent: Spent | None) -> None:
        """Settle the hold at hand, and hold what the next send may cost. Raises Fault."""
        await self._settled(self._taken(state), spent)
        if spent is not None:
            self._count(state, spent)
        await self.admit(state)

    async def add(self, state: CallState, request: ResolvedRequest) -> None:
        """Hold so much more for a further send of the same answer. Raises Fault."""
        if state.admitted is not None:
            under = _under_ceiling(self._counts.sized(request), state.spent_microusd)
            await self._admission.hold_more(state.admitted, under)

    async def extend(self, state: CallState, output_tokens: int) -> None:
        """The answer has so many tokens by now. Raises the Fault that ends it."""
        if state.admitted is not None:
            await self._admission.extend(state.admitted, output_tokens)

    async def second(self, state: CallState) -> Admitted:
        """A second hold for a try beside the first one. Raises Fault where it is refused."""
        request, estimate = state.request, state.request.estimate
        bound = self._prices.value.cost_bound_microusd(
            request.model, estimate.input_bound, estimate.output_tokens
        )
        under, call = _under_ceiling(request, state.spent_microusd + (bound or 0)), state.span.call
        admitted = self._admission.admit_now(call, under)
        return admitted if admitted is not None else await self._admission.admit(call, under)

    def took(self, state: CallState, second: Admitted, spent: Spent | None) -> None:
        """The second try has answered: its hold is the one at hand, the first is settled."""
        self.let_go(self._taken(state), spent)
        state.admitted = second

    def let_go(self, admitted: Admitted | None, spent: Spent | None) -> None:
        """Settle a hold whose try brought no answer."""
        if admitted is not None:
            self._later(self._admission.settle(admitted, None, spent))

    def settle(
        self, state: CallState, receipt: common_pb2.Receipt | None, spent: Spent | None
    ) -> asyncio.Task[None] | None:
        """Settle the hold at hand, if any: with the receipt of the answer, or with what the call
        has cost all the same. Returns what goes on beside the caller; None where nothing does.
        """
        admitted = self._taken(state)
        if admitted is None:
            return None
        return self._later(self._admission.settle(admitted, receipt, spent))

    async def _admit(self, state: CallState) -> None:
        request = state.request = self._counts.sized(state.request)
        under = _under_ceiling(request, state.spent_microusd)
        admitted = state.admitted = await self._admission.admit(state.span.call, under)
        state.receipt.note(*admitted.notes)
        left_open = request.kind.open_ended and not request.estimate.output_tokens
        if left_open and request.task.generate.max_tokens != admitted.max_output_tokens:
            task = Task()
            task.CopyFrom(request.task)
            task.generate.max_tokens = admitted.max_output_tokens
            state.request = request.with_task(task)

    def _count(self, state: CallState, spent: Spent) -> None:
        """Count what an earlier try may have cost towards the caller's ceiling, and say so."""
        tokens = spent.input_tokens, spent.output_tokens
        cost = self._prices.value.cost_bound_microusd(spent.model, *tokens) or 0
        state.spent_microusd += cost
        state.receipt.note(
            f"an earlier try of {spent.model} may be billed: about {spent.input_tokens} input and "
            f"{spent.output_tokens} output tokens, {cost} micro-dollars"
        )

    async def _settled(self, admitted: Admitted | None, spent: Spent | None) -> None:
        """Settle a hold and wait for that, so that what it gives back can be held again."""
        if admitted is None:
            return
        deferred = self._admission.settle(admitted, None, spent)
        if deferred is not None:
            await asyncio.wait([self._after.start(deferred)], timeout=SETTLED_WITHIN_S)

    def _taken(self, state: CallState) -> Admitted | None:
        admitted, state.admitted, state.sent = state.admitted, None, False
        return admitted

    def _later(self, deferred: Deferred) -> asyncio.Task[None] | None:
        return self._after.start(deferred) if deferred is not None else None


def _under_ceiling(request: ResolvedRequest, spent_microusd: int) -> ResolvedRequest:
    """The request under what is left of its caller's ceiling."""
    if not spent_microusd:
        return request
    return request._replace(options=with_ceiling_less(request.options, spent_microusd))
