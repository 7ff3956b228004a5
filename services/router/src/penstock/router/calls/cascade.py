"""Asking on: where `model: auto` chose a cheap model and its answer is not sure enough, the next of
the chain is asked; both are billed.

Only answers that say how sure they are can fall below the floor: labels do; vectors and written
text count as sure.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import grpc
from google.protobuf.message import Message
from penstock.api.common.v1 import common_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.calls.call_state import Outcome
from penstock.router.requests.requests import Asked, confidence
from penstock.router.routing.model_choice import AUTO, Models
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault

Run = Callable[[Asked, Call], Awaitable[Outcome]]
"""Serves one model's try as a call of its own, admitted and booked; raises Fault."""


@dataclass(frozen=True)
class Cascade:
    """Takes unsure answers to the next model. Plain but for `run`."""

    models: Models
    run: Run

    def may_climb(self, asked: Asked) -> bool:
        """True where an answer to this call may be taken further."""
        return bool(
            asked.spare_models and asked.options.model == AUTO and self.models.cascade_floor
        )

    async def climb(self, asked: Asked, call: Call, outcome: Outcome) -> Outcome:
        """The first answer that is sure enough, or the last one.

        When no further model can be asked, what is there already stands, and a note says so.
        """
        floor, paid_microusd, unsure = (
            self.models.cascade_floor,
            0,
            list[tuple[common_pb2.Receipt, float]](),
        )
        spare = _after(outcome.receipt.model, asked.spare_models)
        while spare and (sure := confidence(outcome.result)) < floor:
            paid_microusd += outcome.receipt.cost.paid_microusd
            try:
                better = await self.run(_asking(asked, spare, paid_microusd), call)
            except Fault as fault:
                if fault.code is grpc.StatusCode.CANCELLED:
                    raise
                why = fault.reason or fault.code.name
                outcome = _copied(outcome)
                outcome.receipt.notes.append(
                    f"cascade: {sure:.2f} sure, below {floor:g}, but {spare[0]} could not be "
                    f"asked: {why}"
                )
                break
            unsure.append((outcome.receipt, sure))
            outcome, spare = better, _after(better.receipt.model, spare)
        if unsure:
            outcome = _copied(outcome)
            _account_for(outcome.receipt, unsure, floor)
        return outcome


def _copied(outcome: Outcome) -> Outcome:
    """An outcome whose receipt may be written on: the one that was made is still to be settled and
    stored as it is.
    """
    receipt = common_pb2.Receipt()
    receipt.CopyFrom(outcome.receipt)
    return Outcome(outcome.result, receipt)


def _after(model: str, chain: Sequence[str]) -> tuple[str, ...]:
    """The models behind the one that answered: a fallback may have gone some way along the chain
    already.
    """
    return tuple(chain[chain.index(model) + 1 :] if model in chain else chain)


def _asking(asked: Asked, models: Sequence[str], paid_microusd: int) -> Asked:
    """The same task for the next model, under what is left of the caller's ceiling."""
    options, following = asked.options, models[0]
    if options.HasField("max_cost_microusd"):
        options = pb.CallOptions()
        options.CopyFrom(asked.options)
        options.max_cost_microusd = max(0, options.max_cost_microusd - paid_microusd)
    work = asked.work._replace(model=following)
    return asked._replace(
        options=options, model=following, work=work, spare_models=tuple(models[1:]), reason=""
    )


def _account_for(
    receipt: common_pb2.Receipt, unsure: Sequence[tuple[common_pb2.Receipt, float]], floor: float
) -> None:
    """Put the unsure answers, which were paid for, into the receipt of the answer that is given."""
    first = unsure[0][0]
    for earlier, sure in unsure:
        receipt.escalations.add(
            request_id=earlier.request_id,
            model=earlier.model,
            confidence=sure,
            floor=floor,
            usage=earlier.usage,
            cost=earlier.cost,
            total_ms=earlier.total_ms,
        )
        for sums, part in ((receipt.usage, earlier.usage), (receipt.cost, earlier.cost)):
            _add(sums, part)
        receipt.savings.extend(earlier.savings)
        receipt.total_ms += earlier.total_ms
        receipt.notes.extend([note for note in earlier.notes if note not in receipt.notes])
    extra_microusd = receipt.cost.paid_microusd - first.cost.paid_microusd
    receipt.notes.append(
        f"cascade: {first.model} was {unsure[0][1]:.2f} sure, below {floor:g}; asking on cost "
        f"{extra_microusd} micro-dollars "
        f"and {receipt.total_ms - first.total_ms:.1f} ms more"
    )


def _add(sums: Message, part: Message) -> None:
    """Add up numbers; a mark such as `estimated` holds for the whole where it holds for a part."""
    for field, value in part.ListFields():
        total = getattr(sums, field.name)
        setattr(sums, field.name, total or value if isinstance(value, bool) else total + value)
