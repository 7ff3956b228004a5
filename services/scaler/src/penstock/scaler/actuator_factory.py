"""Makes the actuator of a pool from the pool's settings."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Sequence

from penstock.scaler.actuate.actuator import Actuator, Drain, DryRun
from penstock.scaler.actuate.aws import AutoScalingGroups
from penstock.scaler.actuate.kubernetes import KubernetesScale
from penstock.scaler.actuate.local_processes import LocalProcesses, is_serving
from penstock.scaler.actuator_settings import (
    AwsActuator,
    AwsSpotActuator,
    KubernetesActuator,
    NoActuator,
    ProcessActuator,
)
from penstock.scaler.pool_settings import PoolConfig
from penstock.scaler.settings import ScalerSettings
from penstock.scaler.spot.ec2 import Ec2SpotProvider, ec2_offerings
from penstock.scaler.spot.fleet import SpotFleet
from penstock.scaler.spot.observer import StateStore
from penstock.scaler.spot.placement_rule import SpotPolicy
from penstock.scaler.spot.solver import SolverSettings
from penstock.service.clock import Clock
from penstock.service.cpus import usable_cpus
from penstock.service.tls_files import TlsSource


def with_local_pool(pools: Sequence[PoolConfig], settings: ScalerSettings) -> list[PoolConfig]:
    """Return the pools, of which the one named by `local_pool` runs as processes of this machine.

    This is for a developer's machine. The pool keeps an actuator of its own, and its instances are
    at most as many as there are cores, besides those that others started.
    """
    if not settings.local_command:
        return list(pools)
    return [
        _as_local(pool, settings)
        if pool.name == settings.local_pool
        and isinstance(pool.actuator, NoActuator)
        and not pool.dry_run
        else pool
        for pool in pools
    ]


def _as_local(pool: PoolConfig, settings: ScalerSettings) -> PoolConfig:
    actuator = ProcessActuator(
        kind="process",
        command=tuple(shlex.split(settings.local_command)),
        env={
            "PENSTOCK_LISTEN": "127.0.0.1:{port}",
            "PENSTOCK_INSTANCE_ID": "{instance}",
            "PENSTOCK_COMPUTE_THREADS": "1",
        },
        unmanaged_instances=settings.local_beside,
    )
    fitting = settings.local_beside + usable_cpus()
    max_instances = max(pool.min_instances, min(pool.max_instances, fitting))
    return pool.model_copy(update={"actuator": actuator, "max_instances": max_instances})


def make_actuator(
    pool: PoolConfig,
    clock: Clock,
    drain: Drain | None,
    store: StateStore | None = None,
    tls: TlsSource | None = None,
) -> Actuator:
    """Return the actuator of a pool.

    Args:
        drain: called before an instance is stopped.
        store: where a spot fleet keeps what it learns.
        tls: the scaler's certificate, to ask instances for their health; None for plaintext.
    """
    match pool.actuator:
        case ProcessActuator() as config:
            probe = functools.partial(is_serving, tls=tls)
            return LocalProcesses(pool.name, config, clock, drain=drain, probe=probe)
        case KubernetesActuator() as config:
            return KubernetesScale(config)
        case AwsActuator() as config:
            return AutoScalingGroups(config, clock, drain)
        case AwsSpotActuator() as config:
            return _spot_fleet(pool.name, config, clock, drain, store)
        case NoActuator():
            return DryRun(max(1, pool.min_instances))


def _spot_fleet(
    pool: str, config: AwsSpotActuator, clock: Clock, drain: Drain | None, store: StateStore | None
) -> SpotFleet:
    policy = SpotPolicy(
        overprovision=config.overprovision,
        on_demand_base=config.on_demand_base,
        on_demand_delay_s=config.on_demand_delay_s,
    )
    return SpotFleet(
        Ec2SpotProvider(pool, config, clock),
        ec2_offerings(config),
        clock,
        policy,
        solver=SolverSettings(on_demand_base=config.on_demand_base) if config.solver else None,
        drain=drain,
        store=store,
    )
