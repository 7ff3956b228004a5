"""The scaler's knobs from the environment, and its pools from the file's `scaling` section.

Nothing here acts on a value.
"""

from __future__ import annotations

import datetime
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from penstock.scaler.decide.decision import ScalingPolicy, newsvendor_level
from penstock.service.settings import Section, ServiceSettings
from pydantic import Field, ValidationInfo, field_validator, model_validator

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEK: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class ScalerSettings(ServiceSettings):
    """Settings of a scaler."""

    listen: str = Field(
        "127.0.0.1:7076", description="address to serve on: host:port or unix:/path"
    )
    keda_listen: str = Field(
        "", description="address of KEDA's external scaler, without credentials; empty: none"
    )
    notice_listen: str = Field(
        "", description="address that takes termination notices by HTTP POST; empty: none"
    )
    notice_secret: str = Field(
        "", repr=False, description="bearer secret that a notice by HTTP must bring"
    )
    metadata_url: str = Field(
        "", description="instance metadata address to watch for notices; empty: none is watched"
    )
    metadata_cloud: Literal["any", "ec2", "gcp", "azure"] = Field(
        "any", description="whose metadata service that is"
    )
    tick_s: float = Field(5.0, gt=0, description="seconds between decisions")
    batcher_address: str = Field(
        "", description="batcher to ask for queues and cost models; empty: none"
    )
    telemetry_address: str = Field(
        "", description="telemetry to ask for calls and tokens; empty: demand is reported"
    )
    router_address: str = Field("", description="router to drain instances at; empty: none")
    local_pool: str = Field(
        "", description="pool that, without an actuator, runs as processes here; empty: none"
    )
    local_command: str = Field("", description="command of an instance of the local pool")
    local_beside: int = Field(
        0, ge=0, description="instances that run anyway and count towards the local pool"
    )
    leader_ms: int = Field(
        15_000, ge=1_000, description="a scaler that does not renew its lead for so long loses it"
    )

    @field_validator("metadata_url")
    @classmethod
    def _web(cls, url: str) -> str:
        if url and not url.startswith(("http://", "https://")):
            raise ValueError(f"{url!r} is not an address like http://169.254.169.254")
        return url.rstrip("/")


class Schedule(Section):
    """At least so many instances at certain hours."""

    least: int = Field(ge=0)
    days: tuple[Weekday, ...] = WEEK
    begins: datetime.time = datetime.time(0)
    ends: datetime.time = datetime.time.max
    time_zone: str = "UTC"

    @field_validator("time_zone")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError(f"{name!r} is not a known time zone") from None
        return name

    def asks(self, unix_s: float) -> int:
        """Least instances at this moment; 0 outside the hours.

        Hours may pass midnight; the day is the one they begin on.
        """
        local = datetime.datetime.fromtimestamp(unix_s, ZoneInfo(self.time_zone))
        today, time = WEEK[local.weekday()], local.time()
        if self.begins <= self.ends:
            return self.least if today in self.days and self.begins <= time < self.ends else 0
        late, early = (
            today in self.days and time >= self.begins,
            WEEK[local.weekday() - 1] in self.days,
        )
        return self.least if late or (early and time < self.ends) else 0


class ProcessActuator(Section):
    """Runs instances as children of the scaler, which inherit its environment; `beside`: others,
    not its own, that count as well.

    `{instance}`, `{number}`, `{python}` (this interpreter) and `{port}` (one that is free; its
    health then says when the instance serves) are replaced in the command and the variables.
    """

    kind: Literal["process"]
    command: tuple[str, ...] = Field(min_length=1)
    env: dict[str, str] = Field(default_factory=dict)
    grace_s: float = Field(10.0, ge=0)
    beside: int = Field(0, ge=0)


class KubernetesActuator(Section):
    """Sets the scale subresource of a workload."""

    kind: Literal["kubernetes"]
    name: str
    namespace: str = "default"
    workload: Literal["deployment", "stateful_set"] = "deployment"


class AwsActuator(Section):
    """Sets the wanted size of Auto Scaling groups; the second group, if any, runs on spot and takes
    all above `base`.
    """

    kind: Literal["aws"]
    group: str
    spot_group: str = ""
    base: int = Field(0, ge=0)
    region: str = ""


class AwsSpotActuator(Section):
    """Runs EC2 machines from a launch template, on spot by zone with on-demand fall-back.

    `zones`: zones and their failure domains (what falls together); `on_demand_price`: dollars an
    hour; `more_types`: further types that spot may use, and how many instances of `instance_type` a
    machine of each does; `solver`: plan with the scenario program beside the online rule.
    """

    kind: Literal["aws_spot"]
    launch_template: str
    instance_type: str
    zones: dict[str, str] = Field(min_length=1)
    on_demand_price: float = Field(gt=0)
    more_types: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    region: str = ""
    extra: int = Field(1, ge=0)
    base: int = Field(0, ge=0)
    patience_s: float = Field(0.0, ge=0)
    solver: bool = False

    @property
    def capacities(self) -> dict[str, float]:
        """Instances that a machine does, by type; what is wanted is counted in machines of the
        first.
        """
        return {self.instance_type: 1.0, **self.more_types}

    @field_validator("more_types")
    @classmethod
    def _others(cls, types: dict[str, float], info: ValidationInfo) -> dict[str, float]:
        if (own := info.data.get("instance_type")) in types:
            raise ValueError(f"{own!r} is instance_type already, of capacity 1")
        return types


class NoActuator(Section):
    """Decides and does nothing; what KEDA acts on, or a trial run."""

    kind: Literal["dry_run"] = "dry_run"


Actuators = Annotated[
    ProcessActuator | KubernetesActuator | AwsActuator | AwsSpotActuator | NoActuator,
    Field(discriminator="kind"),
]


class PoolConfig(Section):
    """One pool: a model and the instances that serve it.

    `level` is the quantile of demand to provide for; with prices (`under`, `over`, each per unit of
    work) it follows from them. `capacity`: work that one instance does in a second; 0 takes it from
    the batcher's cost model. `interval_s`: length of a sample.
    """

    name: str = Field(min_length=1)
    least: int = Field(1, ge=0)
    most: int = Field(4, ge=1)
    interval_s: float = Field(60.0, gt=0)
    hold_steps: int = Field(2, ge=1, le=6)
    level: float = Field(0.95, ge=0.5, le=0.99)
    under: float | None = Field(None, ge=0)
    over: float | None = Field(None, ge=0)
    capacity: float = Field(0.0, ge=0)
    utilisation: float = Field(0.8, gt=0, le=1)
    seed_lead_s: float = Field(180.0, gt=0)
    start_cost_s: float = Field(180.0, ge=0)
    zero_after_s: float = Field(300.0, ge=0)
    drain_backlog_s: float = Field(30.0, gt=0)
    stale_s: float = Field(180.0, gt=0)
    down_every_s: float = Field(60.0, ge=0)
    dry_run: bool = False
    schedules: tuple[Schedule, ...] = ()
    actuator: Actuators = NoActuator()

    @model_validator(mode="after")
    def _consistent(self) -> PoolConfig:
        if self.least > self.most:
            raise ValueError(f"least ({self.least}) is above most ({self.most})")
        if (self.under is None) != (self.over is None):
            raise ValueError("under and over come together")
        if self.under is not None and self.over is not None:
            newsvendor_level(self.under, self.over)
        return self

    @property
    def wanted_level(self) -> float:
        """The quantile to provide for, within what a forecaster keeps."""
        if self.under is None or self.over is None:
            return self.level
        return min(max(newsvendor_level(self.under, self.over), 0.5), 0.99)

    def rules(self) -> ScalingPolicy:
        """The pool's bounds as the decision takes them."""
        return ScalingPolicy(
            least=self.least,
            most=self.most,
            start_cost_s=self.start_cost_s,
            zero_after_s=self.zero_after_s,
            drain_backlog_s=self.drain_backlog_s,
            stale_s=self.stale_s,
            down_every_s=self.down_every_s,
        )

    def scheduled(self, unix_s: float) -> int:
        """The most that any schedule asks for now."""
        return max((schedule.asks(unix_s) for schedule in self.schedules), default=0)


class ScalingSection(Section):
    """The file's `scaling` section."""

    pools: tuple[PoolConfig, ...] = ()

    @field_validator("pools")
    @classmethod
    def _unique(cls, pools: tuple[PoolConfig, ...]) -> tuple[PoolConfig, ...]:
        names = [pool.name for pool in pools]
        double = sorted({name for name in names if names.count(name) > 1})
        if double:
            raise ValueError(f"pools named twice: {', '.join(double)}")
        return pools
