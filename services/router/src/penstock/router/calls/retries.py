"""What is done when a try has failed: the table of reasons, held against what the call may still
use. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple

from penstock.rpc.reasons import Consequences, Retry
from penstock.service.purity import pure


class Step(Enum):
    """What comes after a failed try."""

    RETRY_HERE = "retry here"
    RETRY_ELSEWHERE = "retry elsewhere"
    """Costs one of the retries that the router may spend."""
    NEXT_MODEL = "next model"
    GIVE_UP = "give up"


class Means(NamedTuple):
    """What a call may still use."""

    repeatable: bool
    """Whether its task may be computed twice."""
    attempts: int
    """Tries made so far."""
    instances_tried: int
    max_instances: int
    others: bool
    """Whether an instance is left that was not tried and may be given work."""
    time_left: bool
    retries_left: bool
    """Whether the router may spend another retry."""
    spare_models: bool
    """Whether a model is left that may serve after this failure."""


@pure
def next_step(failure: Consequences, means: Means) -> Step:
    """What to do after a failure."""
    if failure.retry is Retry.HERE and means.attempts < 2 * means.max_instances:
        return Step.RETRY_HERE
    elsewhere = failure.retry is Retry.ELSEWHERE or (
        failure.retry is Retry.IF_REPEATABLE and means.repeatable
    )
    in_bounds = means.instances_tried < means.max_instances and means.time_left
    if elsewhere and in_bounds and means.others and means.retries_left:
        return Step.RETRY_ELSEWHERE
    if failure.other_model and means.spare_models and means.time_left:
        return Step.NEXT_MODEL
    return Step.GIVE_UP


@pure
def spare_models_after(
    failure: Consequences, model: str, spare: Sequence[str], window_of: Callable[[str], int]
) -> Sequence[str]:
    """The spare models that may serve after a failure of `model`, in their order.

    Args:
        window_of: the longest prompt that a model takes, in tokens; 0 where it is not known, which
            is no reason to leave the model out.
    """
    if not failure.other_model:
        return ()
    window = window_of(model)
    if not failure.larger_model or not window:
        return spare
    return [one for one in spare if window_of(one) == 0 or window_of(one) > window]
