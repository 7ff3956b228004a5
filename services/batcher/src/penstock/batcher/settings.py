"""The batcher's settings, and the `batching` section of the configuration file.

Knobs that Triton's dynamic batcher has carry its names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from penstock.service.settings import Section, ServiceSettings
from pydantic import Field


class BatcherSettings(ServiceSettings):
    """Settings of a batcher, from the environment."""

    listen: str = Field(
        "127.0.0.1:7073", description="address to serve on: host:port or unix:/path"
    )


MAX_MICROSECONDS = 86_400_000_000
"""A day: nothing waits longer in a queue."""
PriorityName = Literal["low", "normal", "high", "critical"]


class QueuePolicySection(Section):
    """Queue limits of one priority class; 0 stands for the model's own limit."""

    max_queue_size: int = Field(0, ge=0)
    """Requests of the class that may wait."""
    default_timeout_microseconds: int = Field(0, ge=0, le=MAX_MICROSECONDS)
    """How long a request may wait in the queue."""
    timeout_action: Literal["reject", "delay"] = "reject"
    """What follows then: an error, or serving it after all others of its class."""
    weight: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Share of the instance between classes; 0: critical 16, high 8, normal 4, low 1."""


class KnobsSection(Section):
    """Batching knobs of one model."""

    max_batch_size: int = Field(32, ge=1)
    """Rows (texts) in a batch."""
    max_batch_tokens: int = Field(16_384, ge=1)
    """Padded tokens in a batch: its rows times its longest row."""
    preferred_batch_size: tuple[int, ...] = ()
    """A batch with one of these numbers of rows starts without waiting for more."""
    max_queue_delay_microseconds: int = Field(0, ge=0, le=MAX_MICROSECONDS)
    """How long a batch may be kept open for more requests, where waiting pays."""
    max_batch_ms: float = Field(20.0, ge=0)
    """Predicted milliseconds of a batch; 0: no limit."""
    max_urgent_batch_ms: float = Field(8.0, ge=0)
    """The same for a batch whose first request is critical."""
    look_ahead: int = Field(64, ge=1)
    """Waiting requests that are considered for a batch."""
    strict_priority: bool = False
    """Serve classes strictly by urgency, with the weights as a guaranteed share."""
    max_queue_size: int = Field(1024, ge=1)
    """Requests of the model that may wait."""
    default_timeout_microseconds: int = Field(0, ge=0, le=MAX_MICROSECONDS)
    """How long a request may wait in the queue; 0: until its own deadline."""
    queue_policies: Mapping[PriorityName, QueuePolicySection] = {}
    """Limits by priority class."""


class BatchingSection(Section):
    """`batching:` of the file: knobs for all models, and by model name."""

    default: KnobsSection = KnobsSection()
    models: Mapping[str, KnobsSection] = {}
