"""The cache's settings, from the environment and from the section `cache` of the file."""

from __future__ import annotations

from penstock.service.default_models import ENCODER
from penstock.service.settings import Section, ServiceSettings
from pydantic import Field


class CacheSettings(ServiceSettings):
    """Settings from the environment."""

    listen: str = Field(
        "127.0.0.1:7071", description="address to serve on: host:port or unix:/path"
    )
    embedder: str = Field(
        ENCODER,
        description="model that embeds prompts; empty: only exact answers are served",
    )
    secret: str = Field(
        "",
        repr=False,
        description="secret of the keyed hashes; empty: a new one at each start, and entries of an "
        "earlier one are not found; the production profile needs it",
    )
    coalesce_ms: int = Field(
        30_000,
        ge=0,
        description="longest wait for the answer of an identical look-up in flight, milliseconds",
    )

    def missing_in_production(self) -> list[str]:
        """See ServiceSettings."""
        if self.secret:
            return []
        problem = (
            "PENSTOCK_CACHE_SECRET: the production profile needs a secret for the keys of entries; "
            "set a long random one, the same for all caches of a store"
        )
        return [problem]


class JudgeSection(Section):
    """`cache: {judge: …}`: the model that says whether two free answers are equivalent.

    It receives prompts and answers.
    """

    url: str = Field(pattern="^https?://")
    """An OpenAI-compatible API, such as `http://127.0.0.1:8000/v1`."""
    model: str = Field(min_length=1)
    key_env: str = ""
    """Environment variable that holds the API key; empty: no key is sent."""
    timeout_ms: int = Field(3_000, gt=0)
    most_connections: int = Field(8, ge=1)


class CacheSection(Section):
    """The section `cache` of the file."""

    max_error_rate: float = Field(0.03, gt=0, lt=1)
    """Largest share of wrong answers among semantic hits: a target with an audited bound. Callers
    may only tighten it.
    """
    ttl_s: float = Field(86_400, gt=0)
    """How long an answer is stored."""
    ttl_jitter: float = Field(0.1, ge=0, lt=1)
    """Largest share by which that time is randomly shortened."""
    stale_while_revalidate_s: float = Field(0, ge=0)
    """How long past its time an exact answer may be served while one caller's router fetches the
    new one (after RFC 5861); 0: never.
    """
    max_temperature: float = Field(0.3, ge=0)
    """Answers drawn at a higher temperature are stored only where the caller asks for reuse."""
    tenant_bytes: int = Field(64 << 20, ge=1 << 16)
    """Limit of the entries of one tenant."""
    total_bytes: int = Field(512 << 20, ge=1 << 16)
    """Limit of the entries of all tenants."""
    compress_above_bytes: int = Field(1_024, ge=0)
    lookup_microusd: int = Field(1, ge=0)
    """Computing cost of one semantic look-up, embedding included. It is made only where the
    expected saving is larger, and it is charged.
    """
    probes_per_s: float = Field(200, gt=0)
    """Semantic look-ups of one tenant per second, so that guessing what others have asked is slow.
    """
    lessons_bytes: int = Field(256 << 20, ge=1 << 20)
    """Limit of the learning log, about; its oldest events leave."""
    scope_entries: int = Field(100_000, ge=1_000)
    """Limit of the entries of one semantic scope; its oldest leave."""
    judge: JudgeSection | None = None
    """None: answers in free text are only served exactly."""
