"""The batcher's knobs, from the environment and the `batching` section of the file.

Names are Triton's where it has one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from penstock.service.settings import Section, ServiceSettings
from pydantic import Field


class BatcherSettings(ServiceSettings):
    """Settings of a batcher."""

    listen: str = Field(
        "127.0.0.1:7073", description="address to serve on: host:port or unix:/path"
    )


PriorityName = Literal["low", "normal", "high", "critical"]


class QueuePolicySection(Section):
    """Queue limits of one priority class; 0 leaves the model's own."""

    max_queue_size: int = Field(0, ge=0)
    default_timeout_microseconds: int = Field(0, ge=0)
    timeout_action: Literal["reject", "delay"] = "reject"
    weight: float = Field(0.0, ge=0)


class KnobsSection(Section):
    """Batching knobs of one model."""

    max_batch_size: int = Field(32, ge=1)
    max_batch_tokens: int = Field(16_384, ge=1)
    preferred_batch_size: tuple[int, ...] = ()
    max_queue_delay_microseconds: int = Field(0, ge=0)
    max_batch_ms: float = Field(20.0, ge=0)
    max_urgent_batch_ms: float = Field(8.0, ge=0)
    look_ahead: int = Field(64, ge=1)
    strict_priority: bool = False
    max_queue_size: int = Field(1024, ge=1)
    default_timeout_microseconds: int = Field(0, ge=0)
    queue_policies: Mapping[PriorityName, QueuePolicySection] = {}


class BatchingSection(Section):
    """`batching:` of the file: knobs for all models, and by model name."""

    default: KnobsSection = KnobsSection()
    models: Mapping[str, KnobsSection] = {}
