"""The batching knobs in force, and their forms: in the configuration file, in the contract, and as
the limits and weights that the queue reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from penstock.api.batcher.v1 import batcher_pb2 as pb
from penstock.batcher.queue.fair_queue import DEFAULT_WEIGHTS
from penstock.batcher.queue.requests import CRITICAL, HIGH, LOW, NORMAL
from penstock.batcher.settings import (
    BatchingSection,
    KnobsSection,
    PriorityName,
    QueuePolicySection,
)
from penstock.rpc.errors import invalid
from pydantic import ValidationError

PRIORITY_NAMES: Mapping[int, PriorityName] = {
    CRITICAL: "critical",
    HIGH: "high",
    NORMAL: "normal",
    LOW: "low",
}
TIMEOUT_ACTIONS: Mapping[int, str] = {
    pb.TIMEOUT_ACTION_UNSPECIFIED: "reject",
    pb.TIMEOUT_ACTION_REJECT: "reject",
    pb.TIMEOUT_ACTION_DELAY: "delay",
}
DEFAULT_POLICY = QueuePolicySection()


class KnobTable:
    """The knobs of every model, read by the queues and changed while they run."""

    def __init__(self, section: BatchingSection) -> None:
        self.default = section.default
        self._by_model: dict[str, KnobsSection] = dict(section.models)

    def for_model(self, model: str) -> KnobsSection:
        """The knobs in force for a model: its own, else the default."""
        return self._by_model.get(model, self.default)

    def replace(self, section: BatchingSection) -> None:
        """Put the file's knobs in force; what `change` changed before is gone."""
        self.default = section.default
        self._by_model = dict(section.models)

    def change(self, model: str, changes: pb.Knobs) -> KnobsSection:
        """Change the knobs of a model, or the default where `model` is empty; returns the new ones.

        Raises:
            Fault: INVALID_ARGUMENT naming the knob whose value is not allowed.
        """
        knobs = with_changes(self.for_model(model), changes)
        if model:
            self._by_model[model] = knobs
        else:
            self.default = knobs
        return knobs

    def to_proto(self) -> dict[str, pb.Knobs]:
        """All knobs by model name; the empty name is the default."""
        knobs = {"": self.default, **self._by_model}
        return {model: to_proto(section) for model, section in knobs.items()}


class ClassLimits(NamedTuple):
    """What holds for one priority class of one model.

    `max_queue_size`: requests of the model that may wait. `max_class_size`: requests of the class
    that may wait, 0 for as many. `timeout_s`: seconds that a request may wait, 0 for no limit.
    `postpones`: whether a request goes behind its class after that, instead of being refused.
    """

    max_queue_size: int
    max_class_size: int
    timeout_s: float
    postpones: bool


def class_limits(knobs: KnobsSection, priority: int) -> ClassLimits:
    """The limits of a class: its own where set, else the model's."""
    policy = knobs.queue_policies.get(PRIORITY_NAMES[priority], DEFAULT_POLICY)
    timeout_us = policy.default_timeout_microseconds or knobs.default_timeout_microseconds
    return ClassLimits(
        knobs.max_queue_size,
        policy.max_queue_size,
        timeout_us / 1e6,
        policy.timeout_action == "delay",
    )


def class_weights(knobs: KnobsSection) -> dict[int, float]:
    """Weight by class: the configured one, else the default."""
    return {
        priority: knobs.queue_policies.get(name, DEFAULT_POLICY).weight or DEFAULT_WEIGHTS[priority]
        for priority, name in PRIORITY_NAMES.items()
    }


def with_changes(knobs: KnobsSection, changes: pb.Knobs) -> KnobsSection:
    """The knobs with those of a Configure request put in.

    Raises:
        Fault: INVALID_ARGUMENT naming the knob whose value is not allowed.
    """
    values: dict[str, Any] = knobs.model_dump()
    for field, value in changes.ListFields():
        if field.name == "queue_policies":
            values[field.name] |= dict(map(_policy, value))
        elif field.name == "preferred_batch_size":
            values[field.name] = tuple(value)
        else:
            values[field.name] = value
    try:
        return KnobsSection.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        raise invalid(f"knobs.{path}", first["msg"]) from None


def _policy(policy: pb.QueuePolicy) -> tuple[str, dict[str, object]]:
    """A class's name, and its policy in the form of the configuration file."""
    if policy.priority not in PRIORITY_NAMES:
        raise invalid(
            "knobs.queue_policies.priority", f"{policy.priority} is not a priority; use 1 to 4"
        )
    if policy.timeout_action not in TIMEOUT_ACTIONS:
        raise invalid(
            "knobs.queue_policies.timeout_action",
            f"{policy.timeout_action} is not a timeout action; use 1 (reject) or 2 (delay)",
        )
    return PRIORITY_NAMES[policy.priority], {
        "max_queue_size": policy.max_queue_size,
        "default_timeout_microseconds": policy.default_timeout_microseconds,
        "timeout_action": TIMEOUT_ACTIONS[policy.timeout_action],
        "weight": policy.weight,
    }


def to_proto(knobs: KnobsSection) -> pb.Knobs:
    """The knobs as the contract has them, every class with what holds for it."""
    message = pb.Knobs(
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
        action = pb.TIMEOUT_ACTION_DELAY if limits.postpones else pb.TIMEOUT_ACTION_REJECT
        message.queue_policies.add(
            priority=priority,
            max_queue_size=limits.max_class_size or limits.max_queue_size,
            default_timeout_microseconds=round(limits.timeout_s * 1e6),
            timeout_action=action,
            weight=weight,
        )
    return message
