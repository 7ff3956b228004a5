"""Real child processes started, drained, replaced and ended by decisions."""

from __future__ import annotations

import os
import sys

from penstock.scaler.actuate.actuator import FleetStatus, LocalProcesses
from penstock.scaler.actuator_factory import local_pools
from penstock.scaler.settings import PoolConfig, ProcessActuator, ScalerSettings
from penstock.service.clock import SystemClock

from .conftest import Scalers
from .test_keda import feed

WAITER = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); signal.pause()"


def processes(drained: list[str]) -> LocalProcesses:
    async def drain(instance: str, reason: str) -> None:
        drained.append(f"{instance} {reason}")

    command = (sys.executable, "-S", "-c", WAITER, "{instance}")
    return LocalProcesses(
        "m", ProcessActuator(kind="process", command=command), SystemClock(), drain=drain
    )


async def test_processes_follow_the_decision_and_are_drained_before_they_end(
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
    assert drained == [f"m-{number} scale_down" for number in (3, 2, 1)]


async def test_one_that_will_go_is_replaced_before_it_is_drained() -> None:
    drained: list[str] = []
    actuator = processes(drained)
    await actuator.scale(2)
    assert await actuator.replace("m-1", 120.0)
    assert actuator.instances == ["m-2", "m-3"]
    assert not await actuator.replace("m-1", 120.0)
    await actuator.close()
    assert drained == ["m-1 spot_notice", "m-2 scale_down", "m-3 scale_down"]


async def test_what_runs_anyway_counts_and_is_left_alone() -> None:
    command = (sys.executable, "-S", "-c", WAITER, "{instance}")
    actuator = LocalProcesses(
        "m", ProcessActuator(kind="process", command=command, beside=2), SystemClock()
    )
    assert await actuator.fleet() == FleetStatus(2, 2)
    for wanted, own in ((3, ["m-1"]), (1, [])):
        await actuator.scale(wanted)
        assert actuator.instances == own
    await actuator.close()


def test_on_a_developers_machine_the_pool_runs_as_processes_no_more_than_there_are_cores() -> None:
    pools = [PoolConfig(name="m", most=10_000), PoolConfig(name="chat")]
    assert local_pools(pools, ScalerSettings()) == pools
    settings = ScalerSettings(local_pool="m", local_command="{python} -m thing", local_beside=2)
    first, trial = local_pools(pools, settings)
    assert isinstance(first.actuator, ProcessActuator) and first.actuator.command == (
        "{python}",
        "-m",
        "thing",
    )
    assert first.actuator.beside == 2 and first.most == 2 + (os.cpu_count() or 1)
    assert trial == pools[1]


async def test_one_that_died_is_started_again() -> None:
    actuator = processes([])
    await actuator.scale(1)
    child = actuator._children["m-1"].process
    child.kill()
    await child.wait()
    assert (await actuator.fleet()).ready == 0
    await actuator.scale(1)
    assert actuator.instances == ["m-2"]
    await actuator.close()
