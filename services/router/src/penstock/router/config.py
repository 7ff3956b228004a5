"""The router's knobs, from the environment and the `keys` section of the file."""

from __future__ import annotations

from typing import Literal

from penstock.core.config import Section, ServiceSettings
from pydantic import Field, field_validator

Strategy = Literal["least_added_delay", "round_robin", "least_requests", "power_of_two"]


class RouterSettings(ServiceSettings):
    """Settings of a router."""

    listen: str = Field("127.0.0.1:7070", description="address to serve on: host:port or unix:/path")
    batcher_address: str = Field(
        "", description="batcher for instances that name none; empty: instances are called directly"
    )
    cache_address: str = Field("", description="cache to ask first; empty: none")
    limiter_address: str = Field("", description="limiter to ask first; empty: none")
    strategy: Strategy = Field("least_added_delay", description="how instances are chosen")
    heartbeat_interval_ms: int = Field(500, ge=50, description="how often instances say that they live")
    lease_ms: int = Field(3_000, ge=200, description="without a heartbeat for so long an instance is lost")
    default_deadline_ms: int = Field(30_000, ge=1, description="deadline of a call that sets none")
    max_attempts: int = Field(3, ge=1, description="instances tried for one call at most")
    retry_budget: float = Field(0.1, ge=0, le=1, description="retries as a share of requests at most")
    default_model: str = Field("all-MiniLM-L6-v2", description="model of a call that names none")


class KeySection(Section):
    """One API key: only its SHA-256 is kept."""

    id: str = Field(min_length=1, max_length=64)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    organisation: str = Field(min_length=1, max_length=128)
    team: str = ""
    user: str = ""
    tags: tuple[str, ...] = ()
    priority_ceiling: Literal["low", "normal", "high", "critical"] = "critical"


class KeysSection(Section):
    """`keys:` of the file."""

    api: tuple[KeySection, ...] = ()

    @field_validator("api")
    @classmethod
    def _once(cls, keys: tuple[KeySection, ...]) -> tuple[KeySection, ...]:
        for name in ("id", "sha256"):
            values = [getattr(key, name) for key in keys]
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"{name} stands twice: {', '.join(twice)}")
        return keys
