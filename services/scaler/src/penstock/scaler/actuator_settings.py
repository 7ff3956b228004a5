"""Settings of the actuators: who starts and stops the instances of a pool."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from penstock.service.settings import Section
from pydantic import Field, ValidationInfo, field_validator


class ProcessActuator(Section):
    """Runs instances as child processes of the scaler, which inherit its environment.

    `{instance}`, `{number}`, `{python}` (this interpreter) and `{port}` (a free TCP port; the
    health check there says when the instance serves) are replaced in `command` and `env`.
    """

    renamed_keys: ClassVar[Mapping[str, str]] = {"beside": "unmanaged_instances"}

    kind: Literal["process"]
    command: tuple[str, ...] = Field(min_length=1, description="program and arguments")
    env: dict[str, str] = Field(default_factory=dict, description="additional variables")
    grace_s: float = Field(10.0, ge=0, description="seconds between SIGTERM and SIGKILL")
    unmanaged_instances: int = Field(
        0, ge=0, description="instances started by others that count towards the pool"
    )


class KubernetesActuator(Section):
    """Sets the scale subresource of a workload."""

    kind: Literal["kubernetes"]
    name: str = Field(description="name of the workload")
    namespace: str = "default"
    workload: Literal["deployment", "stateful_set"] = "deployment"


class AwsActuator(Section):
    """Sets the desired capacity of one or two Auto Scaling groups."""

    renamed_keys: ClassVar[Mapping[str, str]] = {"base": "on_demand_base"}

    kind: Literal["aws"]
    group: str = Field(description="Auto Scaling group of on-demand machines")
    spot_group: str = Field(
        "", description="group of spot machines for all above on_demand_base; empty: none"
    )
    on_demand_base: int = Field(
        0, ge=0, description="machines in `group` where there is a spot_group"
    )
    region: str = Field("", description="AWS region; empty: that of the environment")


class AwsSpotActuator(Section):
    """Runs EC2 machines from a launch template on spot, with on-demand fallback."""

    renamed_keys: ClassVar[Mapping[str, str]] = {
        "base": "on_demand_base",
        "extra": "overprovision",
        "patience_s": "on_demand_delay_s",
    }

    kind: Literal["aws_spot"]
    launch_template: str = Field(description="name of the launch template")
    instance_type: str = Field(description="type that does the work of one wanted instance")
    zones: dict[str, str] = Field(
        min_length=1, description="availability zones and the failure domain of each"
    )
    on_demand_price: float = Field(gt=0, description="dollars an hour of instance_type on demand")
    more_types: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict,
        description="further types for spot, and how many machines of instance_type each replaces",
    )
    region: str = Field("", description="AWS region; empty: that of the environment")
    overprovision: int = Field(1, ge=0, description="spot instances above the wanted number")
    on_demand_base: int = Field(0, ge=0, description="instances that always run on demand")
    on_demand_delay_s: float = Field(
        0.0, ge=0, description="seconds a shortage lasts before on-demand machines are started"
    )
    solver: bool = Field(False, description="plan with the scenario program beside the online rule")

    @property
    def capacities(self) -> dict[str, float]:
        """Wanted instances that one machine replaces, by instance type."""
        return {self.instance_type: 1.0, **self.more_types}

    @field_validator("more_types")
    @classmethod
    def _check_more_types(cls, types: dict[str, float], info: ValidationInfo) -> dict[str, float]:
        own = info.data.get("instance_type")
        if own in types:
            raise ValueError(f"{own!r} is instance_type already, of capacity 1")
        return types


class NoActuator(Section):
    """Starts and stops nothing: KEDA acts on the decisions, or nobody does."""

    kind: Literal["dry_run"] = "dry_run"


Actuators = Annotated[
    ProcessActuator | KubernetesActuator | AwsActuator | AwsSpotActuator | NoActuator,
    Field(discriminator="kind"),
]
