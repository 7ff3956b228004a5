"""Actuators on this machine: real child processes started, drained, replaced and stopped."""

from __future__ import annotations

import os
import signal
import sys

from penstock.scaler.actuate.actuator import FleetStatus
from penstock.scaler.actuate.local_processes import LocalProcesses
from penstock.scaler.actuator_factory import with_local_pool
from penstock.scaler.actuator_settings import ProcessActuator
from penstock.scaler.pool_settings import PoolConfig
from penstock.scaler.settings import ScalerSettings
from penstock.service.clock import SystemClock
from penstock.service.cpus import usable_cpus
from penstock.testkit.eventually import eventually

from .conftest import Scalers, feed

WAITER = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); signal.pause()"
COMMAND = (sys.executable, "-S", "-c", WAITER, "{instance}")


def processes(drained: list[str], unmanaged: int = 0) -> LocalProcesses:
    """An actuator of processes that wait for SIGTERM; `drained` gets each drain."""

    async def drain(instance: str, reason: str) -> None:
        drained.append(f"{instance} {reason}")

    config = ProcessActuator(kind="process", command=COMMAND, unmanaged_instances=unmanaged)
    return LocalProcesses("m", config, SystemClock(), drain=drain)


async def test_processes_follow_decisions_and_are_drained_before_they_stop(
    scalers: Scalers,
) -> None:
    drained: list[str] = []
    actuator = processes(drained)
    scaler = await scalers.make(actuator=actuator)
    await feed(scaler, [300.0] * 4)
    assert actuator.instances == ["m-1", "m-2", "m-3"]
    await feed(scaler, [0.0] * 30)
    assert actuator.instances == []
    await actuator.close()
    assert drained == ["m-3 scale_down", "m-2 scale_down", "m-1 scale_down"]


async def test_an_instance_with_a_notice_is_replaced_before_it_is_drained() -> None:
    drained: list[str] = []
    actuator = processes(drained)
    await actuator.scale(2)
    assert await actuator.replace("m-1", 120.0)
    assert actuator.instances == ["m-2", "m-3"]
    assert not await actuator.replace("m-1", 120.0)
    await actuator.close()
    assert drained == ["m-1 spot_notice", "m-2 scale_down", "m-3 scale_down"]


async def test_unmanaged_instances_count_and_are_left_alone() -> None:
    actuator = processes([], unmanaged=2)
    assert await actuator.status() == FleetStatus(2, 2)
    for wanted, own in ((3, ["m-1"]), (1, [])):
        await actuator.scale(wanted)
        assert actuator.instances == own
    await actuator.close()


async def test_an_instance_that_died_is_started_again() -> None:
    actuator = processes([])
    await actuator.scale(1)
    os.kill(actuator.process_ids["m-1"], signal.SIGKILL)

    async def is_gone() -> bool:
        return (await actuator.status()).ready == 0

    await eventually(is_gone)
    await actuator.scale(1)
    assert actuator.instances == ["m-2"]
    await actuator.close()


def test_without_a_local_command_pools_are_left_as_they_are() -> None:
    pools = [PoolConfig(name="m"), PoolConfig(name="chat")]
    assert with_local_pool(pools, ScalerSettings()) == pools


def test_the_local_pool_runs_as_processes_at_most_as_many_as_there_are_cores() -> None:
    pools = [PoolConfig(name="m", max_instances=10_000), PoolConfig(name="chat")]
    settings = ScalerSettings(local_pool="m", local_command="{python} -m thing", local_beside=2)
    local, other = with_local_pool(pools, settings)
    assert isinstance(local.actuator, ProcessActuator)
    assert local.actuator.command == ("{python}", "-m", "thing")
    assert local.actuator.unmanaged_instances == 2
    assert local.max_instances == 2 + usable_cpus()
    assert other == pools[1]
