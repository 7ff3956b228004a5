"""The settings of telemetry, from the environment."""

from __future__ import annotations

from typing import Self

from penstock.service.settings import CommaList, ServiceSettings, split_commas
from penstock.telemetry.export.webhook_address import webhook_problem
from pydantic import Field, field_validator, model_validator


class TelemetrySettings(ServiceSettings):
    """Settings of telemetry."""

    listen: str = Field(
        "127.0.0.1:4317", description="address of OTLP and of the queries: host:port or unix:/path"
    )
    telemetry_window_bytes: int = Field(
        256 << 20,
        ge=1 << 20,
        description="bytes of packed traces to hold, and of open ones as they come; beyond it the "
        "least worth keeping go first",
    )
    telemetry_pending_spans: int = Field(
        200_000,
        ge=1,
        description="spans in exports being taken; beyond it exports are refused with UNAVAILABLE",
    )
    telemetry_series_bytes: int = Field(
        128 << 20,
        ge=1 << 20,
        description="bytes of metric series to hold; beyond it those not written for longest go",
    )
    otlp_http_listen: str = Field(
        "127.0.0.1:4318", description="host:port of OTLP over HTTP; empty: none"
    )
    prometheus_listen: str = Field(
        "127.0.0.1:9464", description="host:port of Prometheus text; empty: none"
    )
    forward_endpoint: str = Field(
        "", description="host:port that every export is forwarded to, over OTLP; empty: none"
    )
    forward_queue_bytes: int = Field(
        256 << 20, ge=1 << 20, description="bytes on disk that wait to be forwarded"
    )
    content_tenants: CommaList = Field(
        (), description="tenants whose prompts and answers may be kept, redacted; comma-separated"
    )

    alert_webhook_url: str = Field(
        "", description="address that incidents are posted to; empty: none"
    )
    alert_webhook_secret: str = Field(
        "", repr=False, description="secret that the webhook's messages are signed with"
    )
    alert_webhook_hosts: CommaList = Field(
        (), description="hosts that the webhook may be on; comma-separated"
    )

    _split = field_validator("content_tenants", "alert_webhook_hosts", mode="before")(split_commas)

    @model_validator(mode="after")
    def _check_webhook(self) -> Self:
        if not self.alert_webhook_url:
            return self
        problem = webhook_problem(
            self.alert_webhook_url, self.alert_webhook_secret, self.alert_webhook_hosts
        )
        if problem:
            raise ValueError(f"PENSTOCK_ALERT_WEBHOOK_URL {problem}")
        return self
