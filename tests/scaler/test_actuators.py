"""Real child processes started, drained, replaced and ended by decisions."""

from __future__ import annotations

import sys

from penstock.core.clock import SystemClock
from penstock.scaler.actuators import LocalProcesses
from penstock.scaler.config import ProcessActuator

from .conftest import Scalers
from .test_keda import feed

WAITER = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); signal.pause()"


def processes(drained: list[str]) -> LocalProcesses:
    async def drain(instance: str, reason: str) -> None:
        drained.append(f"{instance} {reason}")

    command = (sys.executable, "-S", "-c", WAITER, "{instance}")
    return LocalProcesses("m", ProcessActuator(kind="process", command=command), SystemClock(), drain=drain)


async def test_processes_follow_the_decision_and_are_drained_before_they_end(scalers: Scalers) -> None:
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
