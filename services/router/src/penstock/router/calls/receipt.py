"""The receipt of one call: its one writer.

The path says what happened; notes are put in order, money is added up and the message is made when
the answer is there. The full price is what was paid and what each technique saved, so the rows of
savings add up to full price less paid, by definition.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from google.protobuf.message import Message
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.prices.prices import Prices
from penstock.router.stages import Bypass, Hit, LookUp, Shaped

PREFIX_CACHE = "prefix_cache"
"""Technique: the provider read a part of the prompt from its own cache."""


class Route(NamedTuple):
    """Who served a call, and why."""

    instance_id: str
    reason: str
    score: float
    attempts: int
    candidates: int
    """Instances that were looked at, those that were left out included."""


class ReceiptBuilder:
    """Collects what is known of one call."""

    __slots__ = (
        "_cache",
        "_hedged",
        "_notes",
        "_prefix_note",
        "_savings",
        "_shaped_notes",
        "_shaped_savings",
        "model",
        "request_id",
        "run_id",
        "trace_id",
    )

    def __init__(self, request_id: str, trace_id: str, run_id: str, model: str) -> None:
        self.request_id, self.trace_id, self.run_id = request_id, trace_id, run_id
        self.model = model
        self._notes: list[str] = []
        self._savings: list[common_pb2.Saving] = []
        self._shaped_notes: tuple[str, ...] = ()
        self._prefix_note = ""
        self._shaped_savings: tuple[common_pb2.Saving, ...] = ()
        self._cache: common_pb2.CacheReceipt | None = None
        self._hedged = False

    def note(self, *texts: str) -> None:
        """Say something that is worth knowing and is no failure."""
        self._notes.extend(texts)

    def looked_up(self, found: LookUp) -> None:
        """The look-up has decided."""
        self._cache = found.cache
        self._notes.extend(found.notes)
        if not isinstance(found, Bypass):
            self._savings.extend(found.savings)
        if isinstance(found, Hit) and found.model:
            self.model = found.model

    def shaped(self, shaped: Shaped) -> None:
        """The prompt was looked at, and perhaps shaped."""
        self._shaped_notes, self._prefix_note = shaped.notes, shaped.prefix_note
        self._shaped_savings = shaped.savings

    def go_on_with(self, model: str, *, shaped: bool) -> None:
        """A spare model serves; `shaped`: with the prompt as it was shaped, if it was."""
        if self._prefix_note:
            self._prefix_note = f"prefix: nothing is known of what {model} was sent before"
        if not shaped:
            unchanged = f"prompt: as it was sent, {model} has another rule"
            self._shaped_notes, self._shaped_savings = (unchanged,), ()
        self.model = model

    def hedged(self) -> None:
        """A second instance was asked beside a slow first one."""
        self._hedged = True

    def finished(
        self,
        result: inference_pb2.TaskResult,
        prices: Prices,
        total_ms: float,
        route: Route | None = None,
        batch: common_pb2.BatchReceipt | None = None,
    ) -> common_pb2.Receipt:
        """The receipt of an answer; without a route it was reused, and costs nothing itself."""
        receipt = common_pb2.Receipt(
            request_id=self.request_id,
            trace_id=self.trace_id,
            run_id=self.run_id,
            model=self.model,
            revision=result.revision,
            compute_ms=result.compute_ms,
            total_ms=total_ms,
            usage=result.usage,
            notes=self._all_notes(),
            savings=(*self._savings, *self._shaped_savings),
            cache=self._cache,
            batch=batch,
        )
        if route is not None:
            self._write_route(receipt.route, route)
        self._write_cost(receipt, prices, reused=route is None)
        return receipt

    def _all_notes(self) -> list[str]:
        if not self._shaped_notes and not self._prefix_note:
            return self._notes
        notes = [*self._notes, *self._shaped_notes]
        return [*notes, self._prefix_note] if self._prefix_note else notes

    def _write_route(self, message: common_pb2.RouteReceipt, route: Route) -> None:
        message.instance_id, message.reason = route.instance_id, route.reason
        message.score, message.attempts = route.score, route.attempts
        message.candidates, message.hedged = route.candidates, self._hedged

    def _write_cost(self, receipt: common_pb2.Receipt, prices: Prices, *, reused: bool) -> None:
        """What the model cost, nothing for a reused answer, and what asking the cache cost.

        A model without a price is not billed, and its cost is marked as estimated.
        """
        paid = 0 if reused else prices.paid_microusd(self.model, receipt.usage)
        if not reused:
            saved = prices.prefix_saving_microusd(self.model, receipt.usage)
            if saved:
                receipt.savings.add(technique=PREFIX_CACHE, microusd=saved)
        cost = receipt.cost
        cost.paid_microusd = (paid or 0) + receipt.cache.cost_microusd
        for saving in receipt.savings:
            cost.saved_microusd += saving.microusd
        cost.full_price_microusd = cost.paid_microusd + cost.saved_microusd
        cost.estimated = paid is None or receipt.usage.estimated


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
