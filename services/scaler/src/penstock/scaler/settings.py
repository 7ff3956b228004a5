"""The scaler's settings from the environment. Pools are read from the file: `pool_settings.py`."""

from __future__ import annotations

from typing import Literal

from penstock.service.settings import ServiceSettings
from pydantic import Field, field_validator


class ScalerSettings(ServiceSettings):
    """Settings of a scaler."""

    listen: str = Field(
        "127.0.0.1:7076", description="address to serve on: host:port or unix:/path"
    )
    keda_listen: str = Field(
        "", description="address of KEDA's external scaler, without credentials; empty: not served"
    )
    notice_listen: str = Field(
        "", description="address that takes termination notices by HTTP POST; empty: not served"
    )
    notice_secret: str = Field(
        "", repr=False, description="bearer secret that a notice by HTTP must carry"
    )
    metadata_url: str = Field(
        "", description="instance metadata service to poll for notices; empty: not polled"
    )
    metadata_cloud: Literal["any", "ec2", "gcp", "azure"] = Field(
        "any", description="cloud whose protocol the metadata service speaks; any: try all"
    )
    tick_s: float = Field(5.0, gt=0, description="seconds between decisions")
    batcher_address: str = Field(
        "",
        description="batcher to read queues and cost models from, several with commas between; "
        "empty: none",
    )
    telemetry_address: str = Field(
        "", description="telemetry to read calls and tokens from; empty: demand must be reported"
    )
    router_address: str = Field("", description="router to drain instances at; empty: none")
    registry_address: str = Field(
        "", description="the router's port for scalers, where it has one; empty: router_address"
    )
    local_pool: str = Field(
        "", description="pool without an actuator to run as local processes; empty: none"
    )
    local_command: str = Field("", description="command that starts an instance of the local pool")
    local_beside: int = Field(
        0, ge=0, description="instances started by others that count towards the local pool"
    )
    leader_ms: int = Field(
        15_000, ge=1_000, description="milliseconds after which a silent leader is replaced"
    )

    @field_validator("metadata_url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        if url and not url.startswith(("http://", "https://")):
            raise ValueError(f"{url!r} is not an address like http://169.254.169.254")
        return url.rstrip("/")
