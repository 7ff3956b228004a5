"""The batcher's knobs, from the environment and the `batching` section of the file. Names are Triton's where it has one."""

from __future__ import annotations

from collections.abc import Mapping

from penstock.core.config import Section, ServiceSettings
from pydantic import Field


class BatcherSettings(ServiceSettings):
    """Settings of a batcher."""

    listen: str = Field("127.0.0.1:7073", description="address to serve on: host:port or unix:/path")


class KnobsSection(Section):
    """Batching knobs of one model."""

    max_batch_size: int = Field(32, ge=1)
    max_batch_tokens: int = Field(16_384, ge=1)
    preferred_batch_size: tuple[int, ...] = ()
    max_queue_delay_microseconds: int = Field(0, ge=0)
    max_batch_ms: float = Field(0.0, ge=0)
    max_urgent_batch_ms: float = Field(0.0, ge=0)
    look_ahead: int = Field(64, ge=1)
    max_queue_size: int = Field(1024, ge=1)
    default_timeout_microseconds: int = Field(0, ge=0)


class BatchingSection(Section):
    """`batching:` of the file: knobs for all models, and by model name."""

    default: KnobsSection = KnobsSection()
    models: Mapping[str, KnobsSection] = {}
