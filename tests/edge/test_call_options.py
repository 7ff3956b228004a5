"""What callers say beside their request, and how the router's refusals are told."""

from __future__ import annotations

import pytest
from penstock.api.inference.v1 import inference_pb2
from penstock.edge.call_options import options_of
from penstock.edge.failures import failure_of
from penstock.edge.wire import Asked, BadRequest, FailureKind
from penstock.rpc.errors import Fault, invalid
from penstock.rpc.reasons import Reason

ASKED = Asked(inference_pb2.GenerateTask(), "m")


@pytest.mark.parametrize(
    ("said", "microusd"),
    [("0.29", 290_000), ("0", 0), ("1.0000019", 1_000_001), ("100000", 10**11)],
)
def test_dollars_become_micro_dollars_without_a_rounding_of_their_own(
    said: str, microusd: int
) -> None:
    assert options_of(ASKED, {"x-penstock-max-cost": said}).max_cost_microusd == microusd


@pytest.mark.parametrize("said", ["-1", "1e3", "nan", ".5", "1.", "1" * 17, "0x1", "\u0663"])
def test_what_is_no_amount_of_dollars_is_refused(said: str) -> None:
    with pytest.raises(BadRequest) as refused:
        options_of(ASKED, {"x-penstock-max-cost": said})
    assert refused.value.param == "x-penstock-max-cost"


@pytest.mark.parametrize(("said", "is_final"), [("true", True), ("False", False), ("", False)])
def test_a_call_says_that_it_is_for_its_runs_final_answer(said: str, is_final: bool) -> None:
    assert options_of(ASKED, {"x-penstock-final": said}).run_final is is_final


def test_what_is_neither_true_nor_false_is_refused() -> None:
    with pytest.raises(BadRequest) as refused:
        options_of(ASKED, {"x-penstock-final": "yes"})
    assert refused.value.param == "x-penstock-final"


@pytest.mark.parametrize(
    ("fault", "message", "param"),
    [
        (invalid("task.messages", "is empty"), "messages: is empty", "messages"),
        (invalid("texts", "is empty"), "input: is empty", "input"),
        (invalid("options.model", "task.x is unknown"), "model: task.x is unknown", "model"),
        (Fault(Reason.INTERNAL, "the task.py of options.x"), "the task.py of options.x", ""),
    ],
)
def test_a_refusal_names_the_field_as_the_wires_do(fault: Fault, message: str, param: str) -> None:
    failure = failure_of(fault)
    assert (failure.message, failure.param) == (message, param)


def test_a_budget_that_is_used_up_is_no_rate() -> None:
    failure = failure_of(Fault(Reason.BUDGET_EXHAUSTED, "used up"))
    assert (failure.kind, failure.may_retry) == (FailureKind.NO_BUDGET, False)
