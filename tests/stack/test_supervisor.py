"""The supervisor on real processes: order, restarts, refused configurations, and the stop."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from penstock.service.program import CannotStart
from penstock.stack.process import GRPC_EXPERIMENTS, Program
from penstock.stack.supervisor import RestartPolicy, Supervisor
from penstock.testkit.eventually import eventually

SLEEP = "import time; print('up', flush=True); time.sleep(60)"
PRINT_VARIABLE = "import os; print('got', os.environ['GRPC_EXPERIMENTS']); " + SLEEP
REFUSE = "import sys; print('no port'); sys.exit(2)"


class Lines:
    """A line sink that remembers what it got."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def __call__(self, name: str, line: str) -> None:
        self.seen.append((name, line))

    def count(self, name: str, part: str) -> int:
        """Number of lines of a process that contain `part`."""
        return sum(process == name and part in line for process, line in self.seen)

    async def wait_for(self, name: str, part: str, times: int = 1) -> None:
        await eventually(lambda: self.count(name, part) >= times)


def program(name: str, code: str) -> Program:
    return Program(name, (sys.executable, "-u", "-c", code))


async def always(program: Program) -> bool:
    return True


async def never(program: Program) -> bool:
    return False


async def test_a_crashed_program_is_restarted_and_the_log_says_so() -> None:
    lines = Lines()
    supervisor = Supervisor(lines, always, RestartPolicy(initial_s=0.01))
    await supervisor.start((program("worker", SLEEP),))
    await lines.wait_for("worker", "up")
    child = supervisor.child("worker")
    assert child is not None
    child.kill()
    await lines.wait_for("penstock", "worker ended (signal 9); restarting in 0.01 s")
    await lines.wait_for("worker", "up", times=2)
    await supervisor.stop()


@pytest.mark.parametrize(
    ("own_value", "seen"), [(None, GRPC_EXPERIMENTS), ("mine", "mine")], ids=["unset", "set"]
)
async def test_programs_get_the_polling_variable_unless_it_is_set(
    monkeypatch: pytest.MonkeyPatch, own_value: str | None, seen: str
) -> None:
    if own_value is None:
        monkeypatch.delenv("GRPC_EXPERIMENTS", raising=False)
    else:
        monkeypatch.setenv("GRPC_EXPERIMENTS", own_value)
    lines = Lines()
    supervisor = Supervisor(lines, always)
    await supervisor.start((program("one", PRINT_VARIABLE),))
    await lines.wait_for("one", f"got {seen}")
    await supervisor.stop()


async def test_no_process_is_left_after_the_stop() -> None:
    lines = Lines()
    supervisor = Supervisor(lines, always)
    await supervisor.start((program("one", SLEEP), program("two", SLEEP)))
    await lines.wait_for("one", "up")
    await lines.wait_for("two", "up")
    pids = [child.pid for name in ("one", "two") if (child := supervisor.child(name))]
    await supervisor.stop()
    assert len(pids) == 2
    assert not any(psutil.pid_exists(pid) for pid in pids)


async def test_a_program_that_refuses_its_configuration_ends_the_start() -> None:
    lines = Lines()
    supervisor = Supervisor(lines, never)
    with pytest.raises(CannotStart, match=r"^bad did not start: no port$"):
        await supervisor.start((program("bad", REFUSE),))
    await supervisor.stop()
    assert ("bad", "no port") in lines.seen


async def test_a_program_that_refuses_its_configuration_at_a_restart_is_tried_again(
    tmp_path: Path,
) -> None:
    marker = tmp_path / "has-served"
    code = f"import pathlib, sys; p = pathlib.Path({str(marker)!r}); "
    code += "refused = p.exists(); p.touch(); sys.exit(2 if refused else 1)"
    lines = Lines()
    supervisor = Supervisor(lines, always, RestartPolicy(initial_s=0.01))
    await supervisor.start((program("edited", code),))
    await lines.wait_for("penstock", "edited ended (exit status 2); restarting", times=2)
    await supervisor.stop()


async def test_a_reload_reaches_the_programs_that_read_their_file_again() -> None:
    lines = Lines()
    supervisor = Supervisor(lines, always)
    code = "import signal; signal.signal(signal.SIGHUP, lambda *_: print('again', flush=True)); "
    ignores = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL); "
    reads = replace(
        program("reads", code + "print('up', flush=True); signal.pause()"), reloads=True
    )
    store = program("store", ignores + SLEEP)
    await supervisor.start((reads, store))
    await lines.wait_for("reads", "up")
    await lines.wait_for("store", "up")
    supervisor.reload()
    await lines.wait_for("reads", "again")
    await supervisor.stop()
    assert lines.count("penstock", "store ended") == 0


async def test_a_program_that_never_becomes_ready_is_named() -> None:
    supervisor = Supervisor(Lines(), never)
    with pytest.raises(CannotStart, match=r"slow is not ready after 0\.2 s"):
        await supervisor.start((program("slow", SLEEP),), timeout_s=0.2)
    await supervisor.stop()


@pytest.mark.parametrize(
    ("crashes", "delay_s"), [(1, 0.5), (2, 1.0), (3, 2.0), (20, 15.0), (1000, 15.0)]
)
def test_the_restart_delay_doubles_up_to_a_limit(crashes: int, delay_s: float) -> None:
    assert RestartPolicy().delay_s(crashes) == delay_s
