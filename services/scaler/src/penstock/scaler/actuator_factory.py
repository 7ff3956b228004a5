"""Who acts for a pool, as its settings say."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence

from penstock.scaler.actuate.actuator import Actuator, Drain, DryRun, LocalProcesses
from penstock.scaler.actuate.aws import AutoScalingGroups
from penstock.scaler.actuate.kubernetes import KubernetesScale
from penstock.scaler.settings import (
    AwsActuator,
    AwsSpotActuator,
    KubernetesActuator,
    NoActuator,
    PoolConfig,
    ProcessActuator,
    ScalerSettings,
)
from penstock.scaler.spot.ec2 import Ec2SpotProvider, places
from penstock.scaler.spot.fleet import OfferingsStore, SpotFleet
from penstock.scaler.spot.placement_rule import SpotPolicy
from penstock.scaler.spot.solver import SolverSettings
from penstock.service.clock import Clock


def local_pools(pools: Sequence[PoolConfig], settings: ScalerSettings) -> list[PoolConfig]:
    """On a developer's machine: the pool that nobody acts for runs as processes, no more than there
    are cores beside what runs anyway.
    """
    if not settings.local_command:
        return list(pools)
    env = {
        "PENSTOCK_LISTEN": "127.0.0.1:{port}",
        "PENSTOCK_INSTANCE_ID": "{instance}",
        "PENSTOCK_COMPUTE_THREADS": "1",
    }
    command = tuple(shlex.split(settings.local_command))
    acting = ProcessActuator(kind="process", command=command, env=env, beside=settings.local_beside)
    most = settings.local_beside + (os.cpu_count() or 1)
    return [
        pool.model_copy(update={"actuator": acting, "most": max(pool.least, min(pool.most, most))})
        if pool.name == settings.local_pool
        and isinstance(pool.actuator, NoActuator)
        and not pool.dry_run
        else pool
        for pool in pools
    ]


def actuator(
    pool: PoolConfig, clock: Clock, drain: Drain | None, memory: OfferingsStore | None = None
) -> Actuator:
    """Who acts for a pool."""
    chosen = pool.actuator
    if isinstance(chosen, ProcessActuator):
        return LocalProcesses(pool.name, chosen, clock, drain=drain)
    if isinstance(chosen, KubernetesActuator):
        return KubernetesScale(chosen)
    if isinstance(chosen, AwsActuator):
        return AutoScalingGroups(chosen, clock, drain)
    if isinstance(chosen, AwsSpotActuator):
        knobs = SpotPolicy(extra=chosen.extra, base=chosen.base, patience_s=chosen.patience_s)
        solver = SolverSettings(base=chosen.base) if chosen.solver else None
        return SpotFleet(
            Ec2SpotProvider(pool.name, chosen, clock),
            places(chosen),
            clock,
            knobs,
            solver,
            drain,
            memory,
        )
    return DryRun(max(1, pool.least))
