"""The limiter's knobs, from the environment; rules and prices come from the file (`rules.py`,
`penstock.prices.prices`).
"""

from __future__ import annotations

from penstock.service.settings import ServiceSettings
from pydantic import Field, field_validator


class LimiterSettings(ServiceSettings):
    """Settings of a limiter."""

    listen: str = Field(
        "127.0.0.1:7072", description="address to serve on: host:port or unix:/path"
    )
    admin_listen: str = Field("", description="address of the operators' service; empty: none")
    admin_tokens: str = Field(
        "",
        repr=False,
        description="operators' credentials: name=secret, separated by commas; empty: nobody",
    )
    envoy_listen: str = Field(
        "", description="address of Envoy's rate limit service, without credentials; empty: none"
    )
    hold_ms: int = Field(
        60_000,
        ge=1_000,
        description="a hold that nobody settles for so long keeps its input's cost",
    )
    lease_ms: int = Field(
        5_000, ge=500, description="a lease that is not renewed for so long counts as spent"
    )
    lease_share: float = Field(
        0.2, gt=0, le=1, description="most of what is available that one lease takes"
    )
    expected_quantile: float = Field(
        0.9, gt=0, lt=1, description="part of outputs that an expected hold covers"
    )
    store_timeout_ms: int = Field(
        250, ge=1, description="longest wait for the store before its loss is assumed"
    )
    store_patience_ms: float = Field(
        100.0,
        gt=0,
        description="wait for a store that has been quick, before each rule's `store_loss` "
        "applies; a busy host needs more than an idle one",
    )
    store_pause_ms: int = Field(50, ge=1, description="pause between two probes of a lost store")

    @field_validator("admin_tokens")
    @classmethod
    def _pairs(cls, text: str) -> str:
        if any("=" not in part for part in text.split(",") if part.strip()):
            raise ValueError("must be name=secret, separated by commas")
        return text

    def operators(self) -> dict[str, str]:
        """Names by secret."""
        pairs = (
            part.strip().partition("=") for part in self.admin_tokens.split(",") if part.strip()
        )
        return {secret: name for name, _, secret in pairs}
