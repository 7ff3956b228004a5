"""The service's knobs, read once. Nothing else here."""

from __future__ import annotations

import os
from typing import Literal

from penstock.service.settings import CommaList, ServiceSettings, split_commas
from pydantic import Field, field_validator


class InferenceSettings(ServiceSettings):
    """Settings of an instance that runs ONNX models."""

    listen: str = Field(
        "127.0.0.1:7074", description="address to serve on: host:port or unix:/path"
    )
    instance_id: str = Field(
        "inference-1", min_length=1, description="identifier in the fleet, stable over restarts"
    )
    router_address: str = Field("", description="router to register with; empty: none")
    batcher_address: str = Field(
        "", description="batcher in front of this instance; empty: the router's default"
    )
    models: CommaList = Field(
        ("all-MiniLM-L6-v2",),
        description="models to load, by name, separated by commas; the first is the default",
    )
    compute_threads: int = Field(
        os.cpu_count() or 1, ge=1, description="rows computed at the same time"
    )
    providers: CommaList = Field(
        ("CPUExecutionProvider",), description="onnxruntime providers, best first"
    )
    memory_budget_bytes: int = Field(
        4 << 30, gt=0, description="memory of all loaded models; the least recently used leaves"
    )
    max_texts: int = Field(1024, ge=1, description="texts in one task at most")
    max_text_bytes: int = Field(32 << 10, ge=1, description="UTF-8 bytes of one text at most")
    max_tensor_bytes: int = Field(
        64 << 20, ge=1, description="bytes of all tensors of one task at most"
    )
    kserve: Literal["auto", "open", "token", "off"] = Field(
        "auto",
        description="who may use the KServe v2 service; auto: all on loopback or a socket, else "
        "holders of the internal token",
    )
    zone: str = Field("", description="failure domain")
    spot: bool = Field(False, description="true when this instance may be taken away")
    microusd_per_hour: int = Field(
        0, ge=0, description="price of this instance in micro-dollars an hour"
    )

    _split = field_validator("models", "providers", mode="before")(split_commas)

    def kserve_needs_token(self) -> bool:
        """Whether a caller of the KServe door must hold the internal token."""
        host = self.listen.rpartition(":")[0].strip("[]")
        local = (
            self.listen.startswith("unix:")
            or host in ("localhost", "::1")
            or host.startswith("127.")
        )
        return self.kserve == "token" or (self.kserve == "auto" and not local)
