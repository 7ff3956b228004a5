"""The supervisor on real processes: order, restart, refusal, and no process left."""

from __future__ import annotations

import asyncio
import sys

import psutil
import pytest
from penstock.service.program import CannotStart
from penstock.stack.process import GRPC_EXPERIMENTS, Program
from penstock.stack.supervisor import RestartPolicy, Supervisor

SLEEPER = "import time; print('up', flush=True); time.sleep(60)"


class Lines:
    """A line sink that can be waited on."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self._changed = asyncio.Event()

    def __call__(self, name: str, line: str) -> None:
        self.seen.append((name, line))
        self._changed.set()

    async def until(self, name: str, part: str, times: int = 1) -> None:
        async with asyncio.timeout(20):
            while sum(1 for who, line in self.seen if who == name and part in line) < times:
                self._changed.clear()
                await self._changed.wait()


def _program(name: str, code: str) -> Program:
    return Program(name, (sys.executable, "-u", "-c", code))


async def _ready(program: Program) -> bool:
    return True


async def test_a_crashed_program_is_started_again_and_said_so() -> None:
    lines = Lines()
    supervisor = Supervisor(lines, _ready, RestartPolicy(initial_s=0.01))
    await supervisor.start((_program("worker", SLEEPER),))
    await lines.until("worker", "up")
    child = supervisor.child("worker")
    assert child is not None
    child.kill()
    await lines.until("penstock", "worker ended (signal 9)")
    await lines.until("worker", "up", times=2)
    await supervisor.stop()


@pytest.mark.parametrize(("set_here", "seen"), [(None, GRPC_EXPERIMENTS), ("mine", "mine")])
async def test_programs_poll_where_they_wait_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, set_here: str | None, seen: str
) -> None:
    if set_here is None:
        monkeypatch.delenv("GRPC_EXPERIMENTS", raising=False)
    else:
        monkeypatch.setenv("GRPC_EXPERIMENTS", set_here)
    lines = Lines()
    supervisor = Supervisor(lines, _ready)
    await supervisor.start(
        (_program("one", f"import os; print('got', os.environ['GRPC_EXPERIMENTS']); {SLEEPER}"),)
    )
    await lines.until("one", f"got {seen}")
    await supervisor.stop()


async def test_stopping_leaves_no_process() -> None:
    lines = Lines()
    supervisor = Supervisor(lines, _ready)
    await supervisor.start((_program("one", SLEEPER), _program("two", SLEEPER)))
    await lines.until("one", "up")
    await lines.until("two", "up")
    pids = [child.pid for name in ("one", "two") if (child := supervisor.child(name))]
    await supervisor.stop()
    assert len(pids) == 2
    assert not any(psutil.pid_exists(pid) for pid in pids)


async def test_a_program_that_refuses_its_configuration_ends_the_start() -> None:
    async def never(program: Program) -> bool:
        return False

    lines = Lines()
    supervisor = Supervisor(lines, never)
    with pytest.raises(CannotStart, match="cannot start as it is configured"):
        await supervisor.start((_program("bad", "import sys; print('no port'); sys.exit(2)"),))
    await supervisor.stop()
    assert ("bad", "no port") in lines.seen


async def test_one_that_never_gets_ready_is_named() -> None:
    async def never(program: Program) -> bool:
        return False

    supervisor = Supervisor(Lines(), never)
    with pytest.raises(CannotStart, match="slow is not ready"):
        await supervisor.start((_program("slow", SLEEPER),), timeout_s=0.2)
    await supervisor.stop()


@pytest.mark.parametrize(
    ("crashes", "delay_s"), [(1, 0.5), (2, 1.0), (3, 2.0), (20, 15.0), (1000, 15.0)]
)
def test_the_wait_doubles_up_to_a_limit(crashes: int, delay_s: float) -> None:
    assert RestartPolicy().delay_s(crashes) == delay_s
