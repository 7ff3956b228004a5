"""Asking on: where `model: auto` chose a cheap model and its answer is not sure enough, the next of
the chain is asked; both are paid for.

Only kinds whose answers say how sure they are can fall below the floor.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from google.protobuf.message import Message
from penstock.api.common.v1 import common_pb2
from penstock.router.calls.state import Outcome
from penstock.router.requests.resolved import ResolvedRequest, with_ceiling_less
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
    options = with_ceiling_less(request.options, paid_microusd)
    return request._replace(
        options=options,
        model=models[0],
        spare_models=tuple(models[1:]),
        model_note="",
        is_escalation=True,
    )


class UnsureAnswer(NamedTuple):
    """An answer that was paid for and taken further, because it was not sure enough."""

    receipt: common_pb2.Receipt
    confidence: float


def with_escalations(
    receipt: common_pb2.Receipt, unsure: Sequence[UnsureAnswer], floor: float
) -> common_pb2.Receipt:
    """A copy of an answer's receipt that holds what the unsure answers before it took and cost.

    Args:
        floor: confidence below which an answer was taken to the next model.
    """
    whole = copied(receipt)
    for earlier, confidence in unsure:
        whole.escalations.add(
            request_id=earlier.request_id,
            model=earlier.model,
            confidence=confidence,
            floor=floor,
            usage=earlier.usage,
            cost=earlier.cost,
            total_ms=earlier.total_ms,
        )
        _add_up(whole.usage, earlier.usage)
        _add_up(whole.cost, earlier.cost)
        whole.savings.extend(earlier.savings)
        whole.total_ms += earlier.total_ms
        whole.notes.extend([note for note in earlier.notes if note not in whole.notes])
    first = unsure[0]
    extra_microusd = whole.cost.paid_microusd - first.receipt.cost.paid_microusd
    whole.notes.append(
        f"cascade: {first.receipt.model} was {first.confidence:.2f} sure, below {floor:g}; asking "
        f"on cost {extra_microusd} micro-dollars and "
        f"{whole.total_ms - first.receipt.total_ms:.1f} ms more"
    )
    return whole


def noted(receipt: common_pb2.Receipt, note: str) -> common_pb2.Receipt:
    """A copy of a receipt with one note more."""
    whole = copied(receipt)
    whole.notes.append(note)
    return whole


def copied(receipt: common_pb2.Receipt) -> common_pb2.Receipt:
    """A receipt that may be changed: the first one is still to be settled and stored as it is."""
    copy = common_pb2.Receipt()
    copy.CopyFrom(receipt)
    return copy


def _add_up(sums: Message, part: Message) -> None:
    """Add up numbers; a mark such as `estimated` holds for the whole where it holds for a part."""
    for field, value in part.ListFields():
        total = getattr(sums, field.name)
        setattr(sums, field.name, total or value if isinstance(value, bool) else total + value)
