"""The limiter's settings from the environment.

Rules and prices stand in the configuration file (`rules.py`, `penstock.prices.prices`).
"""

from __future__ import annotations

from collections.abc import Iterator

from penstock.limiter.store.connection import StoreTimings
from penstock.rpc.operators import check_operators
from penstock.service.durability import StoreFacts, ledger_warnings
from penstock.service.settings import ServiceSettings
from pydantic import Field, field_validator


class LimiterSettings(ServiceSettings):
    """Settings of a limiter."""

    listen: str = Field(
        "127.0.0.1:7072", description="address to serve on: host:port or unix:/path"
    )
    admin_listen: str = Field(
        "", description="address of the operators' service; empty: it is not served"
    )
    admin_tokens: str = Field(
        "",
        repr=False,
        description="operators' credentials, name=secret separated by commas; empty: no operators",
    )
    envoy_listen: str = Field(
        "",
        description="address of Envoy's rate limit service, which asks for no credentials; empty: "
        "it is not served",
    )
    hold_ms: int = Field(
        60_000,
        ge=1_000,
        description="milliseconds after which a hold that nobody settles expires; the cost of its "
        "input stays spent",
    )
    lease_ms: int = Field(
        5_000,
        ge=500,
        description="milliseconds after which a lease that nobody renews expires and counts as "
        "spent",
    )
    lease_share: float = Field(
        0.2, gt=0, le=1, description="largest part of what is available that one lease takes"
    )
    expected_quantile: float = Field(
        0.9,
        gt=0,
        lt=1,
        description="part of earlier outputs whose cost a hold of expected cost covers",
    )
    store_timeout_ms: int = Field(
        250, ge=1, description="milliseconds without an answer after which the store is lost"
    )
    store_patience_ms: float = Field(
        100.0,
        gt=0,
        description="milliseconds to wait for a store that has been quick, before each rule's "
        "`store_loss` applies; a busy host needs more than an idle one",
    )
    store_pause_ms: int = Field(
        50, ge=1, description="milliseconds between two probes of a lost store"
    )

    _pairs = field_validator("admin_tokens")(check_operators)

    def store_warnings(self, facts: StoreFacts) -> Iterator[str]:
        """What is wrong with the ledger's store, which should be its own."""
        return ledger_warnings(facts, self.ledger_url, self.cache_url)

    def store_timings(self) -> StoreTimings:
        """How long the store is waited for."""
        return StoreTimings(
            timeout_s=self.store_timeout_ms / 1e3,
            probe_pause_s=self.store_pause_ms / 1e3,
            patience_s=self.store_patience_ms / 1e3,
        )
