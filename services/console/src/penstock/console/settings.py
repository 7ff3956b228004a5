"""The settings of the console, from the environment."""

from __future__ import annotations

from penstock.service.settings import ServiceSettings
from pydantic import Field


class ConsoleSettings(ServiceSettings):
    """Settings of the console."""

    listen: str = Field(
        "127.0.0.1:7080", description="host:port of the page; beyond loopback a token is needed"
    )
    console_token: str = Field(
        "", repr=False, description="secret that opens the page where it is not on loopback"
    )
    telemetry_address: str = Field(
        "127.0.0.1:4317", description="telemetry, where most views come from"
    )
    router_address: str = Field("127.0.0.1:7070", description="router, for the score board")
    batcher_address: str = Field(
        "127.0.0.1:7073", description="batcher, for the queues; several with commas between"
    )
    limiter_address: str = Field("127.0.0.1:7072", description="limiter, for the budgets")
    cache_address: str = Field(
        "127.0.0.1:7071", description="cache, for its audits and the threshold's trade-off"
    )
    scaler_address: str = Field("127.0.0.1:7076", description="scaler, for forecasts and decisions")
    api_key: str = Field(
        "", repr=False, description="key for the router's public port, for the score board"
    )
    refresh_s: float = Field(2.0, ge=0.25, description="seconds between refreshes of a view")
