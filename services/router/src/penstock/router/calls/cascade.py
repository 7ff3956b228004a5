"""Asking on: where `model: auto` chose a cheap model and its answer is not sure enough, the next of
the chain is asked; both are paid for.

Only kinds whose answers say how sure they are can fall below the floor.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.calls.receipt import UnsureAnswer, noted, with_escalations
from penstock.router.calls.state import Outcome
from penstock.router.requests.resolved import ResolvedRequest
from penstock.router.routing.model_choice import AUTO, Models
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault

Run = Callable[[ResolvedRequest, Call], Awaitable[Outcome]]
"""Serves one model's try as a call of its own, admitted and booked; raises Fault."""


@dataclass(frozen=True)
class Cascade:
    """Takes unsure answers to the next model."""

    models: Models
    run: Run

    def may_climb(self, request: ResolvedRequest) -> bool:
        """Whether an answer to this request may be taken further."""
        automatic = request.options.model == AUTO
        return bool(automatic and request.spare_models and self.models.cascade_floor)

    async def climb(self, request: ResolvedRequest, call: Call, outcome: Outcome) -> Outcome:
        """The first answer that is sure enough, or the last one.

        When no further model can be asked, the answer that is there stands, and a note says so.
        """
        floor, paid_microusd = self.models.cascade_floor, 0
        unsure: list[UnsureAnswer] = []
        spare = _after(outcome.receipt.model, request.spare_models)
        while spare:
            confidence = request.kind.confidence(outcome.result)
            if confidence is None or confidence >= floor:
                break
            paid_microusd += outcome.receipt.cost.paid_microusd
            try:
                better = await self.run(_for_next(request, spare, paid_microusd), call)
            except Fault as fault:
                if fault.consequences.gives_up:
                    raise
                note = (
                    f"cascade: {confidence:.2f} sure, below {floor:g}, but {spare[0]} could not be "
                    f"asked: {fault.reason}"
                )
                outcome = outcome._replace(receipt=noted(outcome.receipt, note))
                break
            unsure.append(UnsureAnswer(outcome.receipt, confidence))
            outcome, spare = better, _after(better.receipt.model, spare)
        if unsure:
            whole = with_escalations(outcome.receipt, unsure, floor)
            outcome = outcome._replace(receipt=whole)
        return outcome


def _after(model: str, chain: Sequence[str]) -> tuple[str, ...]:
    """The models behind the one that answered: a fallback may have gone along the chain already."""
    return tuple(chain[chain.index(model) + 1 :] if model in chain else chain)


def _for_next(
    request: ResolvedRequest, models: Sequence[str], paid_microusd: int
) -> ResolvedRequest:
    """The same task for the next model, under what is left of the caller's ceiling."""
    options = request.options
    if options.HasField("max_cost_microusd"):
        options = pb.CallOptions()
        options.CopyFrom(request.options)
        options.max_cost_microusd = max(0, options.max_cost_microusd - paid_microusd)
    return request._replace(
        options=options, model=models[0], spare_models=tuple(models[1:]), model_note=""
    )
