"""The router's knobs, from the environment and the `keys` section of the file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from penstock.api.common.v1 import common_pb2
from penstock.rpc.operators import check_operators
from penstock.service.settings import CommaList, Section, ServiceSettings, split_commas
from penstock.tasks.kinds import KindName
from pydantic import AwareDatetime, Field, field_validator, model_validator

Strategy = Literal[
    "least_added_delay",
    "round_robin",
    "least_requests",
    "power_of_two",
    "peak_ewma",
    "weighted_by_utilization",
    "weighted_sum",
    "hot_cold",
    "late_binding",
]


class RouterSettings(ServiceSettings):
    """Settings of a router."""

    listen: str = Field(
        "127.0.0.1:7070", description="address to serve on: host:port or unix:/path"
    )
    registry_listen: str = Field(
        "",
        description="address for instances and scalers, apart from that of clients; empty: the "
        "same; over TLS they need it, since clients show no certificate",
    )
    batcher_address: str = Field(
        "", description="batcher for instances that name none; empty: instances are called directly"
    )
    cache_address: str = Field("", description="cache to ask first; empty: none")
    limiter_address: str = Field("", description="limiter to ask first; empty: none")
    allow_no_limits: bool = Field(
        False, description="true: the production profile starts without a limiter"
    )
    limiter_loss: Literal["closed", "open"] = Field(
        "closed",
        description="when the limiter cannot be reached and no lease is left: refuse, or let pass "
        "unlimited",
    )
    strategy: Strategy = Field("least_added_delay", description="how instances are chosen")
    heartbeat_interval_ms: int = Field(
        1_000, ge=50, description="how often instances say that they live"
    )
    lease_ms: int = Field(
        3_000, ge=200, description="without a heartbeat for so long an instance is lost"
    )
    default_deadline_ms: int = Field(30_000, ge=1, description="deadline of a call that sets none")
    max_attempts: int = Field(3, ge=1, description="instances tried for one call at most")
    retry_budget: float = Field(
        0.1, ge=0, le=1, description="retries as a share of requests at most"
    )
    hedge_budget: float = Field(
        0.05, ge=0, le=1, description="second tries beside slow ones, as a share of requests"
    )
    coalesce_max_temperature: float = Field(
        0.3,
        ge=0,
        description="identical requests in flight share an answer that is sampled at no more, as "
        "the cache's max_temperature",
    )
    try_deadline_ms: int = Field(
        0, ge=0, description="longest time of one try; 0: as long as the call has"
    )
    low_queue_ms: int = Field(
        10_000, ge=1, description="longest expected wait that a low call may join"
    )
    normal_queue_ms: int = Field(
        20_000, ge=1, description="longest expected wait that a normal call may join"
    )
    high_queue_ms: int = Field(
        60_000, ge=1, description="longest expected wait that a high call may join"
    )
    lease_overdraft_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="part of a lease that new calls may spend beyond it while the limiter does not "
        "answer; it is logged, settled later, and may exceed a limit by so much",
    )
    job_slots: int = Field(16, ge=1, description="jobs that this router serves at the same time")
    job_lease_ms: int = Field(
        5_000, ge=100, description="a job whose router has been silent for so long goes to another"
    )
    open_jobs: int = Field(
        10_000, ge=1, description="jobs of an organisation that have not ended; more are refused"
    )
    open_jobs_of_key: int = Field(
        2_000, ge=1, description="jobs of an API key that have not ended; more are refused"
    )
    kept_jobs_mib: int = Field(
        256,
        ge=1,
        description="MiB of requests and results that are kept of an organisation's jobs; the "
        "oldest results leave first",
    )
    job_attempts: int = Field(
        5, ge=1, description="routers that may begin a job before it is given up"
    )
    callback_hosts: CommaList = Field(
        (), description="hosts that ended jobs may be sent to, separated by commas"
    )
    callback_secret: str = Field(
        "", repr=False, description="secret that signs callbacks; empty: none are sent"
    )
    keys_listen: str = Field(
        "", description="address of the operators' service of API keys; empty: it is not served"
    )
    admin_tokens: str = Field(
        "",
        repr=False,
        description="operators' credentials, name=secret separated by commas; empty: no operators",
    )
    keys_secret: str = Field(
        "",
        repr=False,
        description="secret under which API keys are hashed, the same at every router; empty: one "
        "that is made once and kept in the store",
    )
    poll_nice: int = Field(
        5,
        ge=0,
        le=19,
        description="niceness of the thread that waits for messages; 0: as other threads",
    )
    kserve_http_listen: str = Field(
        "", description="host:port of the Open Inference Protocol over HTTP; empty: none"
    )
    default_model: str = Field(
        "",
        description="model of a call that names none; empty: the one that comes with Penstock for "
        "the kind of task",
    )

    _pairs = field_validator("admin_tokens")(check_operators)
    _split = field_validator("callback_hosts", mode="before")(split_commas)

    def queue_limit_s(self, priority: int) -> float:
        """Longest expected wait that a call of this class may join; critical ones have no limit but
        their deadline.
        """
        limits: dict[int, int] = {
            common_pb2.PRIORITY_LOW: self.low_queue_ms,
            common_pb2.PRIORITY_HIGH: self.high_queue_ms,
        }
        if priority == common_pb2.PRIORITY_CRITICAL:
            return math.inf
        return limits.get(priority, self.normal_queue_ms) / 1e3

    def missing_in_production(self) -> list[str]:
        """See ServiceSettings."""
        if self.limiter_address or self.allow_no_limits:
            return []
        problem = (
            "PENSTOCK_LIMITER_ADDRESS: the production profile needs limits; set it, or "
            "PENSTOCK_ALLOW_NO_LIMITS=true"
        )
        return [problem]


PriorityName = Literal["low", "normal", "high", "critical"]
Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]
"""Signatures by a private key only: with a shared secret (HS256), a public key that is taken for
that secret would sign tokens.
"""


class KeySection(Section):
    """One API key: only its SHA-256 is kept."""

    id: str = Field(min_length=1, max_length=64)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    organisation: str = Field(min_length=1, max_length=128)
    team: str = ""
    user: str = ""
    tags: tuple[str, ...] = ()
    priority_ceiling: PriorityName = "normal"
    models: tuple[str, ...] = ()
    """Models that it may use; `*` at the end of a name stands for any rest; empty: all."""
    tasks: tuple[KindName, ...] = ()
    """Kinds of task that it may ask for; empty: all."""
    expires: AwareDatetime | None = None
    """From when on it is refused, with its time zone; absent: never."""

    shows_addresses: bool = False
    """Whether the addresses of instances are shown to its callers: for operators' tools."""

    @property
    def expires_unix_s(self) -> float:
        """`expires` in Unix seconds; infinite for never."""
        return self.expires.timestamp() if self.expires else math.inf

    @field_validator("id")
    @classmethod
    def _is_not_a_tokens(cls, name: str) -> str:
        if name.startswith("jwt:"):
            raise ValueError("must not begin with jwt:, which names callers with signed tokens")
        return name


class TokenIssuer(Section):
    """Who signs tokens (JWT) that are taken beside API keys, and what their claims mean here.

    Exactly one of `jwks_file` and `jwks_url` says by which public keys.
    """

    issuer: str = Field(min_length=1, max_length=256)
    audience: str = Field(min_length=1, max_length=256)
    algorithms: tuple[Algorithm, ...] = Field(("RS256",), min_length=1)
    jwks_file: Path | None = None
    jwks_url: str = Field("", pattern=r"^(https://[^\s@/?#]+/[!-~]*)?$")
    organisation: str = Field("", max_length=128)
    """Organisation of all of its callers; empty: `organisation_claim` says."""
    organisation_claim: str = "organisation"
    team_claim: str = "team"
    user_claim: str = "sub"
    tags_claim: str = "tags"
    models_claim: str = "models"
    """Claim with a list of models, which narrows `models`."""
    tasks_claim: str = "tasks"
    priority_claim: str = "priority_ceiling"
    """Claim with a priority, which may only lower `priority_ceiling`."""
    priority_ceiling: PriorityName = "normal"
    models: tuple[str, ...] = ()
    tasks: tuple[KindName, ...] = ()
    leeway_s: float = Field(10.0, ge=0, le=300)
    """How far clocks may differ."""
    max_age_s: float = Field(86_400.0, gt=0)
    """Longest time between a token's `iat` and its `exp`."""

    @model_validator(mode="after")
    def _has_one_source(self) -> TokenIssuer:
        if (self.jwks_file is None) == (not self.jwks_url):
            raise ValueError("set exactly one of jwks_file and jwks_url")
        return self


class KeysSection(Section):
    """`keys:` of the file."""

    api: tuple[KeySection, ...] = ()
    tokens: tuple[TokenIssuer, ...] = ()

    @field_validator("api")
    @classmethod
    def _once(cls, keys: tuple[KeySection, ...]) -> tuple[KeySection, ...]:
        for name in ("id", "sha256"):
            values = [getattr(key, name) for key in keys]
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"{name} stands twice: {', '.join(twice)}")
        return keys

    @field_validator("tokens")
    @classmethod
    def _one_each(cls, issuers: tuple[TokenIssuer, ...]) -> tuple[TokenIssuer, ...]:
        names = [each.issuer for each in issuers]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"issuer stands twice: {', '.join(twice)}")
        return issuers


class ModelRoute(Section):
    """What is declared of a model, for automatic choice; its price stands in the section
    `prices`.
    """

    name: str = Field(min_length=1, max_length=128)
    quality: float = Field(0.5, ge=0, le=1)
    tasks: tuple[KindName, ...] = ()
    capabilities: tuple[str, ...] = ()
    max_input_tokens: int = Field(0, ge=0)
    tokenizer_file: Path | None = None
    """The model's own `tokenizer.json`, which then counts its prompts for limits and context
    windows; without it they are estimated by script.
    """


class RoutesSection(Section):
    """`routes:` of the file: declared models for `auto`, fallbacks by model, the floor of the
    cascade (0: no cascade).
    """

    models: tuple[ModelRoute, ...] = ()
    fallbacks: Mapping[str, tuple[str, ...]] = {}
    min_quality: float = Field(0.0, ge=0, le=1)
    cascade_floor: float = Field(0.0, ge=0, le=1)
