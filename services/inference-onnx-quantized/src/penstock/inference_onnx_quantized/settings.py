"""The settings of an instance that runs ONNX models."""

from __future__ import annotations

import os
from typing import Literal

from penstock.onnx.encoder import MAX_CELLS
from penstock.service.cpus import usable_cpus
from penstock.service.default_models import ENCODER
from penstock.service.settings import CommaList, ServiceSettings, split_commas
from pydantic import Field, field_validator


def threads_for_a_decoder(usable: int, present: int | None) -> int:
    """Threads for a process that may use so many of the CPUs that are present; 0 leaves the number
    to onnxruntime, which knows of cores but not of quotas.
    """
    return 0 if usable >= (present or 1) else usable


class InferenceSettings(ServiceSettings):
    """Settings from the environment, each as PENSTOCK_ and its name in capitals."""

    listen: str = Field(
        "127.0.0.1:7074", description="address to serve on: host:port or unix:/path"
    )
    instance_id: str = Field(
        "inference-1",
        min_length=1,
        description="name of this instance at the router, stable over restarts",
    )
    router_address: str = Field(
        "", description="address of the router to register with; empty: no registration"
    )
    registry_address: str = Field(
        "", description="the router's port for instances, where it has one; empty: router_address"
    )
    batcher_address: str = Field(
        "", description="address of this instance's batcher; empty: the router's default"
    )
    models: CommaList = Field(
        (ENCODER,),
        description="names of the models to load, separated by commas; the first is the default",
    )
    compute_threads: int = Field(
        default_factory=usable_cpus,
        ge=1,
        description="tasks computed at the same time; by default the CPUs that the container's "
        "quota and the process's affinity leave",
    )
    decoder_threads: int = Field(
        default_factory=lambda: threads_for_a_decoder(usable_cpus(), os.cpu_count()),
        ge=0,
        description="threads inside an operator of a model that generates; 0: one a physical core, "
        "the default where no quota and no affinity leave fewer CPUs",
    )
    providers: CommaList = Field(
        ("CPUExecutionProvider",),
        description="onnxruntime execution providers, separated by commas, the best first",
    )
    memory_budget_bytes: int = Field(
        4 << 30,
        gt=0,
        description="bytes of all loaded models; beyond it the least recently used is unloaded",
    )
    max_texts: int = Field(1024, ge=1, description="most texts in one task")
    max_text_bytes: int = Field(32 << 10, ge=1, description="most UTF-8 bytes of one text")
    max_tensor_bytes: int = Field(
        64 << 20, ge=1, description="most bytes of all tensors of one task"
    )
    max_attention_cells: int = Field(
        MAX_CELLS,
        ge=1,
        description="most rows × length² computed at once, which bounds memory: more rows are "
        "computed in parts, and a longer row of raw tensors is refused unless the model's card "
        "allows its length",
    )
    kserve: Literal["auto", "open", "token", "off"] = Field(
        "auto",
        description="who may use the KServe v2 service: everybody (open), holders of "
        "kserve_token (token), nobody (off); auto: open on loopback or a socket, else token",
    )
    kserve_token: str = Field(
        "",
        repr=False,
        description="secret that callers of KServe v2 send where a token is needed; empty: nobody "
        "may call",
    )
    kserve_http_listen: str = Field(
        "", description="host:port of KServe v2 over HTTP, for those who may use it; empty: none"
    )
    zone: str = Field("", description="availability zone of this instance")
    spot: bool = Field(False, description="true for an instance that its provider may take away")
    microusd_per_hour: int = Field(
        0, ge=0, description="price of this instance in millionths of a dollar an hour"
    )

    _split = field_validator("models", "providers", mode="before")(split_commas)

    def kserve_needs_token(self) -> bool:
        """Whether callers of the KServe v2 service must send `kserve_token`."""
        if self.kserve == "auto":
            return not self._is_local()
        return self.kserve == "token"

    def _is_local(self) -> bool:
        """Whether only this machine reaches the address."""
        if self.listen.startswith("unix:"):
            return True
        host = self.listen.rpartition(":")[0].strip("[]")
        return host in ("localhost", "::1") or host.startswith("127.")
