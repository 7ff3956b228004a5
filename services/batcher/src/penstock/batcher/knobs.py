"""Knobs between the file, the contract and the queue: one place that turns each into the other.

Plain values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penstock.api.batcher.v1 import batcher_pb2 as pb
from penstock.batcher.fair_queue import CRITICAL, DEFAULT_WEIGHTS, HIGH, LOW, NORMAL
from penstock.batcher.settings import KnobsSection, QueuePolicySection
from penstock.rpc.errors import invalid
from pydantic import ValidationError

PRIORITY_NAMES: Mapping[int, str] = {
    CRITICAL: "critical",
    HIGH: "high",
    NORMAL: "normal",
    LOW: "low",
}
ACTIONS = {
    pb.TIMEOUT_ACTION_UNSPECIFIED: "reject",
    pb.TIMEOUT_ACTION_REJECT: "reject",
    pb.TIMEOUT_ACTION_DELAY: "delay",
}


_PLAIN = QueuePolicySection()


@dataclass(frozen=True)
class ClassLimits:
    """What holds for one class of one model: entries of the model that may wait, of the class (0:
    as many), seconds that one may (0: no limit), and what follows then.
    """

    max_queue_size: int
    max_class_size: int
    timeout_s: float
    delay: bool


def class_limits(knobs: KnobsSection, priority: int) -> ClassLimits:
    """The limits of a class: its own where set, else the model's."""
    own = knobs.queue_policies.get(PRIORITY_NAMES[priority], _PLAIN)  # type: ignore[call-overload]
    timeout = own.default_timeout_microseconds or knobs.default_timeout_microseconds
    return ClassLimits(
        knobs.max_queue_size, own.max_queue_size, timeout / 1e6, own.timeout_action == "delay"
    )


def class_weights(knobs: KnobsSection) -> dict[int, float]:
    """Weight by class: configured, else the default."""
    return {
        priority: getattr(knobs.queue_policies.get(name), "weight", 0.0)
        or DEFAULT_WEIGHTS[priority]  # type: ignore[call-overload]
        for priority, name in PRIORITY_NAMES.items()
    }


def with_changes(current: KnobsSection, wanted: pb.Knobs) -> KnobsSection:
    """The knobs with those of a Configure request put in.

    Raises:
        Fault: INVALID_ARGUMENT naming the knob that cannot be.
    """
    values: dict[str, Any] = current.model_dump()
    for field, value in wanted.ListFields():
        if field.name == "queue_policies":
            values["queue_policies"] |= {
                PRIORITY_NAMES[item.priority]: _policy(item)
                for item in value
                if _known(item.priority)
            }
        else:
            values[field.name] = tuple(value) if field.name == "preferred_batch_size" else value
    try:
        return KnobsSection.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise invalid(
            "knobs." + ".".join(str(part) for part in first["loc"]), first["msg"]
        ) from None


def _known(priority: int) -> bool:
    if priority not in PRIORITY_NAMES:
        raise invalid("knobs.queue_policies.priority", f"{priority} is not a class; use 1 to 4")
    return True


def _policy(item: pb.QueuePolicy) -> dict[str, object]:
    if item.timeout_action not in ACTIONS:
        raise invalid(
            "knobs.queue_policies.timeout_action", f"{item.timeout_action} is not an action"
        )
    return {
        "max_queue_size": item.max_queue_size,
        "default_timeout_microseconds": item.default_timeout_microseconds,
        "timeout_action": ACTIONS[item.timeout_action],
        "weight": item.weight,
    }


def to_proto(knobs: KnobsSection) -> pb.Knobs:
    """The knobs as the contract shows them, every class with what holds for it."""
    row = pb.Knobs(
        max_batch_size=knobs.max_batch_size,
        max_batch_tokens=knobs.max_batch_tokens,
        preferred_batch_size=knobs.preferred_batch_size,
        max_queue_delay_microseconds=knobs.max_queue_delay_microseconds,
        max_batch_ms=knobs.max_batch_ms,
        look_ahead=knobs.look_ahead,
        strict_priority=knobs.strict_priority,
    )
    for priority, weight in class_weights(knobs).items():
        limits = class_limits(knobs, priority)
        row.queue_policies.add(
            priority=priority,
            max_queue_size=limits.max_class_size or limits.max_queue_size,
            default_timeout_microseconds=round(limits.timeout_s * 1e6),
            timeout_action=pb.TIMEOUT_ACTION_DELAY if limits.delay else pb.TIMEOUT_ACTION_REJECT,
            weight=weight,
        )
    return row
