"""The conditions under which the documented commands have to work, and how they come about."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

STORE_PROCESSES = ("valkey-server", "redis-server")
STALL_S, STALL_EVERY_S = 0.3, 3.0
BLOCK = b"x" * 65_536
TIMED_DEMOS = 2
"""Demos under each condition that slows nothing down: with three such conditions, enough for an
interval.
"""


@dataclass(frozen=True)
class RunningCommand:
    """A command that runs: its process, below which all others are, and its clone."""

    pid: int
    clone: Path


Disturb = Callable[[RunningCommand], AbstractContextManager[None]]
"""Disturbs a command for as long as it runs."""


def undisturbed(_: RunningCommand) -> AbstractContextManager[None]:
    """Nothing."""
    return contextlib.nullcontext()


@dataclass(frozen=True)
class Condition:
    """Where and how a command runs.

    Attributes:
        name: for the log.
        folder: name of the clone's folder.
        variables: added to the environment.
        cores: most cores that it may use; 0: all.
        disturb: see `Disturb`.
        tested: whether the tests run under it as well.
        demos: how often the demo runs under it in a campaign.
    """

    name: str
    folder: str = "clone"
    variables: Mapping[str, str] = field(default_factory=dict)
    cores: int = 0
    disturb: Disturb = undisturbed
    tested: bool = True
    demos: int = 1

    def command(self, *words: str) -> list[str]:
        """A command line limited to the condition's cores."""
        if not self.cores:
            return list(words)
        cores = sorted(os.sched_getaffinity(0))[: self.cores]
        return ["taskset", "--cpu-list", ",".join(map(str, cores)), *words]


@contextlib.contextmanager
def syncing(command: RunningCommand) -> Iterator[None]:
    """Another writer that flushes the disk without pause."""
    path = command.clone / ".flushed"
    with _background(lambda stop: _sync(path, stop)):
        yield
    path.unlink(missing_ok=True)


@contextlib.contextmanager
def stalling_store(command: RunningCommand) -> Iterator[None]:
    """The command's stores are stopped for 0.3 s every 3 s."""
    with _background(lambda stop: _stall(command.pid, stop)):
        yield


CONDITIONS = (
    Condition("a folder called penstock", folder="penstock", demos=TIMED_DEMOS),
    Condition("a path with spaces", folder="a path with spaces", demos=TIMED_DEMOS),
    Condition("one core", cores=1),
    Condition("another time zone", variables={"TZ": "Asia/Kathmandu"}, demos=TIMED_DEMOS),
    Condition("a disk that is flushed without pause", disturb=syncing, tested=False),
    Condition("a store that stalls for 300 ms", disturb=stalling_store, tested=False),
)


@contextlib.contextmanager
def _background(work: Callable[[threading.Event], None]) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=work, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _sync(path: Path, stop: threading.Event) -> None:
    with path.open("wb") as file:
        while not stop.is_set():
            file.seek(0)
            file.write(BLOCK)
            file.flush()
            os.fsync(file.fileno())


def _stall(pid: int, stop: threading.Event) -> None:
    while not stop.wait(STALL_EVERY_S):
        stores = _stores_below(pid)
        _send(stores, signal.SIGSTOP)
        stop.wait(STALL_S)
        _send(stores, signal.SIGCONT)


def _stores_below(pid: int) -> list[psutil.Process]:
    found: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.name() in STORE_PROCESSES:
                    found.append(process)
    return found


def _send(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
