"""What is done after a failed try, as a table: by what the failure allows and what the call may
still use.
"""

from __future__ import annotations

import itertools

import pytest
from grpc import StatusCode
from penstock.router.calls.retries import Means, Step, next_step, spare_models_after
from penstock.rpc.reasons import TABLE, Consequences, Reason, Retry

FIRST_TRY_FAILED = Means(
    repeatable=True,
    attempts=1,
    instances_tried=1,
    max_instances=3,
    others=True,
    time_left=True,
    retries_left=True,
    spare_models=True,
)
"""A call that may still use everything."""


def after(retry: Retry, other_model: bool = False, **changes: object) -> Step:
    """What is done after a failure that allows this, where the call's means are changed so."""
    failure = Consequences(StatusCode.UNAVAILABLE, retry, other_model)
    return next_step(failure, FIRST_TRY_FAILED._replace(**changes))  # type: ignore[arg-type]


HERE, ELSEWHERE, NEXT_MODEL, GIVE_UP = (
    Step.RETRY_HERE,
    Step.RETRY_ELSEWHERE,
    Step.NEXT_MODEL,
    Step.GIVE_UP,
)
ELSEWHERE_TABLE = [
    ({}, ELSEWHERE),
    ({"repeatable": False}, ELSEWHERE),
    ({"spare_models": False}, ELSEWHERE),
    ({"instances_tried": 2}, ELSEWHERE),
    ({"instances_tried": 3}, NEXT_MODEL),
    ({"instances_tried": 4}, NEXT_MODEL),
    ({"others": False}, NEXT_MODEL),
    ({"retries_left": False}, NEXT_MODEL),
    ({"time_left": False}, GIVE_UP),
    ({"instances_tried": 3, "spare_models": False}, GIVE_UP),
    ({"others": False, "spare_models": False}, GIVE_UP),
    ({"retries_left": False, "spare_models": False}, GIVE_UP),
    ({"attempts": 100}, ELSEWHERE),
]


@pytest.mark.parametrize(("changes", "step"), ELSEWHERE_TABLE)
def test_what_another_instance_may_serve_goes_there_then_to_another_model(
    changes: dict[str, object], step: Step
) -> None:
    assert after(Retry.ELSEWHERE, True, **changes) is step


@pytest.mark.parametrize(("changes", "step"), ELSEWHERE_TABLE)
def test_without_a_model_that_may_serve_it_the_call_is_given_up_instead(
    changes: dict[str, object], step: Step
) -> None:
    expected = GIVE_UP if step is NEXT_MODEL else step
    assert after(Retry.ELSEWHERE, False, **changes) is expected


@pytest.mark.parametrize(("changes", "step"), ELSEWHERE_TABLE)
def test_what_the_instance_may_have_done_goes_elsewhere_where_it_may_be_done_twice(
    changes: dict[str, object], step: Step
) -> None:
    assert after(Retry.IF_REPEATABLE, True, **{**changes, "repeatable": True}) is step


@pytest.mark.parametrize(
    ("changes", "step"),
    [
        ({}, NEXT_MODEL),
        ({"instances_tried": 3, "others": False, "retries_left": False}, NEXT_MODEL),
        ({"spare_models": False}, GIVE_UP),
        ({"time_left": False}, GIVE_UP),
    ],
)
def test_what_the_instance_may_have_done_goes_to_no_other_where_once_is_enough(
    changes: dict[str, object], step: Step
) -> None:
    once = {**changes, "repeatable": False}
    assert after(Retry.IF_REPEATABLE, True, **once) is step
    assert after(Retry.IF_REPEATABLE, False, **once) is GIVE_UP


@pytest.mark.parametrize(
    ("changes", "step"),
    [
        ({}, NEXT_MODEL),
        ({"others": False, "retries_left": False}, NEXT_MODEL),
        ({"spare_models": False}, GIVE_UP),
        ({"time_left": False}, GIVE_UP),
    ],
)
def test_what_no_instance_may_serve_goes_to_another_model(
    changes: dict[str, object], step: Step
) -> None:
    assert after(Retry.NOWHERE, True, **changes) is step
    assert after(Retry.NOWHERE, False, **changes) is GIVE_UP


@pytest.mark.parametrize(
    ("changes", "step"),
    [
        ({}, HERE),
        ({"attempts": 5}, HERE),
        ({"attempts": 5, "others": False, "retries_left": False, "time_left": False}, HERE),
        ({"attempts": 5, "instances_tried": 3, "spare_models": False}, HERE),
        ({"attempts": 6}, NEXT_MODEL),
        ({"attempts": 7}, NEXT_MODEL),
        ({"attempts": 6, "spare_models": False}, GIVE_UP),
        ({"attempts": 6, "time_left": False}, GIVE_UP),
        ({"attempts": 1, "max_instances": 1}, HERE),
        ({"attempts": 2, "max_instances": 1}, NEXT_MODEL),
    ],
)
def test_what_was_mended_is_tried_again_at_the_same_place_twice_as_often_as_instances_are(
    changes: dict[str, object], step: Step
) -> None:
    assert after(Retry.HERE, True, **changes) is step


CHANGES = [
    dict(
        zip(("repeatable", "others", "time_left", "retries_left", "spare_models"), row, strict=True)
    )
    for row in itertools.product([False, True], repeat=5)
]


@pytest.mark.parametrize("retry", Retry)
@pytest.mark.parametrize("instances_tried", [1, 3])
@pytest.mark.parametrize("attempts", [1, 6])
def test_no_step_uses_what_is_not_left(retry: Retry, instances_tried: int, attempts: int) -> None:
    for changes, other_model in itertools.product(CHANGES, [False, True]):
        means = {**changes, "instances_tried": instances_tried, "attempts": attempts}
        step = after(retry, other_model, **means)
        may_leave = changes["others"] and changes["time_left"] and changes["retries_left"]
        if step is ELSEWHERE:
            assert may_leave and instances_tried < 3
            assert retry is Retry.ELSEWHERE or changes["repeatable"]
        if step is NEXT_MODEL:
            assert changes["spare_models"] and changes["time_left"] and other_model
        if step is HERE:
            assert retry is Retry.HERE and attempts < 6


@pytest.mark.parametrize(
    ("reason", "step"),
    [
        (Reason.UNAVAILABLE, ELSEWHERE),
        (Reason.QUEUE_FULL, ELSEWHERE),
        (Reason.UPSTREAM_RATE_LIMITED, ELSEWHERE),
        (Reason.TRY_TIMED_OUT, ELSEWHERE),
        (Reason.NOT_ATTACHED, HERE),
        (Reason.NO_MODEL, NEXT_MODEL),
        (Reason.CANNOT_SERVE, NEXT_MODEL),
        (Reason.NO_INSTANCE, NEXT_MODEL),
        (Reason.SHED, NEXT_MODEL),
        (Reason.INVALID_ARGUMENT, GIVE_UP),
        (Reason.INTERNAL, GIVE_UP),
        (Reason.UPSTREAM_REFUSED, GIVE_UP),
        (Reason.CANCELLED, GIVE_UP),
    ],
)
def test_a_reason_leads_to_this_step_where_everything_is_left(reason: Reason, step: Step) -> None:
    assert next_step(TABLE[reason], FIRST_TRY_FAILED) is step


WINDOWS = {"small": 8, "same": 8, "large": 9, "unknown": 0}


@pytest.mark.parametrize(
    ("model", "reason", "expected"),
    [
        ("small", Reason.UPSTREAM_TOO_LONG, ["large", "unknown"]),
        ("unknown", Reason.UPSTREAM_TOO_LONG, ["same", "large", "unknown"]),
        ("small", Reason.UPSTREAM_CREDENTIALS, ["same", "large", "unknown"]),
        ("small", Reason.UPSTREAM_REFUSED, []),
    ],
)
def test_the_models_that_may_serve_after_a_failure(
    model: str, reason: Reason, expected: list[str]
) -> None:
    spare = ["same", "large", "unknown"]
    found = spare_models_after(TABLE[reason], model, spare, lambda name: WINDOWS[name])
    assert list(found) == expected
