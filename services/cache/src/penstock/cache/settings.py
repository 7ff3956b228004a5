"""The cache's knobs, from the environment and the `cache` section of the file."""

from __future__ import annotations

from penstock.service.settings import Section, ServiceSettings
from pydantic import Field


class CacheSettings(ServiceSettings):
    """Settings of a cache."""

    listen: str = Field(
        "127.0.0.1:7071", description="address to serve on: host:port or unix:/path"
    )
    embedder: str = Field(
        "all-MiniLM-L6-v2", description="model that embeds prompts; empty: exact answers only"
    )
    secret: str = Field(
        "", repr=False, description="secret of the keyed hashes; empty: the internal token"
    )
    coalesce_ms: int = Field(
        30_000, ge=0, description="longest wait for the same request of another router"
    )


class JudgeSection(Section):
    """`cache: {judge: …}`: who says whether two free answers are the same.

    Prompts and answers are sent there.
    """

    url: str = Field(pattern="^https?://")
    """An OpenAI-compatible API, such as `http://127.0.0.1:8000/v1`."""
    model: str = Field(min_length=1)
    key_env: str = ""
    """Variable that holds the key; empty: none is sent."""
    timeout_ms: int = Field(3_000, gt=0)
    most_connections: int = Field(8, ge=1)


class CacheSection(Section):
    """`cache:` of the file."""

    max_error_rate: float = Field(0.03, gt=0, lt=1)
    """Largest share of wrong answers among semantic hits: a target with an audited bound. Callers
    may only tighten it.
    """
    ttl_s: float = Field(86_400, gt=0)
    ttl_jitter: float = Field(0.1, ge=0, lt=1)
    stale_while_revalidate_s: float = Field(0, ge=0)
    """How long past its time an exact answer may be served while one caller's router fetches the
    new one (after RFC 5861); 0: never.
    """
    max_temperature: float = Field(0.3, ge=0)
    tenant_bytes: int = Field(64 << 20, ge=1 << 16)
    total_bytes: int = Field(512 << 20, ge=1 << 16)
    compress_above_bytes: int = Field(1_024, ge=0)
    lookup_microusd: int = Field(1, ge=0)
    """What one semantic look-up costs in computing, embedding included: asked only where the
    expected saving is larger, and booked.
    """
    probes_per_s: float = Field(200, gt=0)
    """Semantic look-ups of one key and second: guessing what others have asked must be slow."""
    lessons_bytes: int = Field(256 << 20, ge=1 << 20)
    """About what the stream may take from which replicas learn their scopes; the oldest lessons
    leave.
    """
    scope_entries: int = Field(100_000, ge=1_000)
    """Most entries of one semantic scope; the oldest leave."""
    judge: JudgeSection | None = None
    """None: answers in free text are exact only."""
