"""What a caller is told whom a limit refuses, by the limiter's verdict."""

from __future__ import annotations

import pytest
from grpc import StatusCode as Code
from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.router.admission.refusals import refusal
from penstock.rpc.reasons import Reason

FROM_A_NEWER_LIMITER = 99
WAIT_MS = 2_500
UNPRICED = (
    "options.model: limit month counts money and the model has no price: ask for one that "
    "ListModels shows, or add it to `prices` in the file"
)


@pytest.mark.parametrize(
    ("verdict", "reason", "code", "message", "wait_s"),
    [
        (
            pb.VERDICT_RATE_LIMITED,
            Reason.RATE_LIMITED,
            Code.RESOURCE_EXHAUSTED,
            "limit month is used up for now",
            2.5,
        ),
        (
            pb.VERDICT_SHED,
            Reason.SHED,
            Code.RESOURCE_EXHAUSTED,
            "limit month is kept for more urgent calls",
            2.5,
        ),
        (
            pb.VERDICT_BUDGET_EXHAUSTED,
            Reason.BUDGET_EXHAUSTED,
            Code.RESOURCE_EXHAUSTED,
            "limit month is spent for this window",
            2.5,
        ),
        (
            pb.VERDICT_NEVER,
            Reason.NEVER_FITS,
            Code.FAILED_PRECONDITION,
            "limit month: this call is larger than the limit; trying again does not help",
            0.0,
        ),
        (
            pb.VERDICT_UNPRICED,
            Reason.NO_PRICE,
            Code.FAILED_PRECONDITION,
            UNPRICED,
            0.0,
        ),
        (
            pb.VERDICT_DRAINED,
            Reason.DRAINED,
            Code.PERMISSION_DENIED,
            "the organisation is being drained by its operator",
            0.0,
        ),
        (
            pb.VERDICT_STORE_UNAVAILABLE,
            Reason.LIMITS_UNAVAILABLE,
            Code.UNAVAILABLE,
            "limit month: the store of the limits does not answer",
            2.5,
        ),
        (
            FROM_A_NEWER_LIMITER,
            Reason.REFUSED,
            Code.RESOURCE_EXHAUSTED,
            "limit month refuses the call",
            2.5,
        ),
    ],
)
def test_a_verdict_is_told_with_its_rule_and_wait(
    verdict: int, reason: Reason, code: Code, message: str, wait_s: float
) -> None:
    fault = refusal(
        pb.Decision(verdict=verdict, rule="month", retry_after_ms=WAIT_MS)  # type: ignore[arg-type]
    )
    assert (fault.reason, fault.code) == (reason, code)
    assert (fault.message, fault.retry_after_s) == (message, wait_s)


def test_a_model_without_a_price_is_a_matter_of_the_model_option() -> None:
    assert refusal(pb.Decision(verdict=pb.VERDICT_UNPRICED)).field == "options.model"
    assert refusal(pb.Decision(verdict=pb.VERDICT_NEVER)).field == ""


def test_a_rule_without_a_name_is_a_limit() -> None:
    fault = refusal(pb.Decision(verdict=pb.VERDICT_SHED))
    assert fault.message == "a limit is kept for more urgent calls"


@pytest.mark.parametrize(
    "verdict", [pb.VERDICT_BUDGET_EXHAUSTED, pb.VERDICT_NEVER, pb.VERDICT_UNPRICED]
)
@pytest.mark.parametrize(
    ("hints", "ending"),
    [
        ({"max_tokens_hint": 40}, "; max_tokens of 40 would pass"),
        ({"cheaper_model_hint": "mini"}, "; model mini would pass"),
        (
            {"max_tokens_hint": 40, "cheaper_model_hint": "mini"},
            "; max_tokens of 40 would pass, model mini would pass",
        ),
    ],
)
def test_what_would_pass_instead_is_told(
    verdict: pb.Verdict, hints: dict[str, object], ending: str
) -> None:
    fault = refusal(pb.Decision(verdict=verdict, rule="b", **hints))  # type: ignore[arg-type]
    assert fault.message.endswith(ending)
