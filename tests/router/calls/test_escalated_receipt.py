"""The receipt of an answer that was asked for again, because the first one was not sure enough."""

from __future__ import annotations

import pytest
from penstock.api.common.v1 import common_pb2
from penstock.router.calls.cascade import UnsureAnswer, copied, noted, with_escalations


def unsure(model: str, paid: int, confidence: float, **more: object) -> UnsureAnswer:
    """An answer of 5 tokens that took 10 ms and saved 1 micro-dollar."""
    receipt = common_pb2.Receipt(
        request_id=f"of {model}",
        model=model,
        usage=common_pb2.Usage(input_tokens=5, **more),  # type: ignore[arg-type]
        savings=[common_pb2.Saving(technique="exact_cache", microusd=1)],
        total_ms=10.0,
        notes=["auto: cheapest of 3", f"note of {model}"],
    )
    receipt.cost.paid_microusd, receipt.cost.saved_microusd = paid, 1
    receipt.cost.full_price_microusd = paid + 1
    return UnsureAnswer(receipt, confidence)


def last_answer() -> common_pb2.Receipt:
    receipt = common_pb2.Receipt(
        request_id="last",
        model="large",
        usage=common_pb2.Usage(input_tokens=5, output_tokens=2),
        total_ms=30.0,
        notes=["note of large"],
    )
    receipt.cost.paid_microusd = receipt.cost.full_price_microusd = 900
    return receipt


def test_an_escalated_answers_receipt_holds_what_the_unsure_ones_took_and_cost() -> None:
    steps = [unsure("small", 10, 0.3), unsure("middle", 100, 0.7)]
    whole = with_escalations(last_answer(), steps, 0.8)
    assert (whole.request_id, whole.model) == ("last", "large")
    assert whole.usage == common_pb2.Usage(input_tokens=15, output_tokens=2)
    assert whole.cost.paid_microusd == 1_010
    assert whole.cost.full_price_microusd == 1_012
    assert whole.cost.saved_microusd == sum(row.microusd for row in whole.savings)
    assert whole.total_ms == 50.0
    assert [(row.request_id, row.model) for row in whole.escalations] == [
        ("of small", "small"),
        ("of middle", "middle"),
    ]
    first = whole.escalations[0]
    assert (first.confidence, first.floor, first.total_ms) == (pytest.approx(0.3), 0.8, 10.0)
    assert (first.cost, first.usage) == (steps[0].receipt.cost, steps[0].receipt.usage)


CASCADE_NOTE = (
    "cascade: small was 0.30 sure, below 0.8; asking on cost 1000 micro-dollars and 40.0 ms more"
)


def test_notes_of_an_escalated_answer_stand_once_and_the_last_says_what_asking_on_cost() -> None:
    steps = [unsure("small", 10, 0.3), unsure("middle", 100, 0.7)]
    assert list(with_escalations(last_answer(), steps, 0.8).notes) == [
        "note of large",
        "auto: cheapest of 3",
        "note of small",
        "note of middle",
        CASCADE_NOTE,
    ]


def test_what_is_estimated_in_a_part_is_estimated_in_the_whole() -> None:
    whole = with_escalations(last_answer(), [unsure("small", 10, 0.3, estimated=True)], 0.8)
    assert whole.usage.estimated
    assert whole.usage.input_tokens == 10


def test_the_receipt_that_is_still_to_be_settled_is_left_as_it_is() -> None:
    receipt = last_answer()
    whole = with_escalations(receipt, [unsure("small", 10, 0.3)], 0.8)
    with_note = noted(receipt, "more")
    assert receipt == last_answer()
    assert list(with_note.notes) == ["note of large", "more"]
    assert copied(whole) == whole
