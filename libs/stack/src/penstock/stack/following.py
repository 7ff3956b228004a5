"""`make up` follows its configuration: a changed file, SIGHUP, and what the scaler wants.

A file with faults is refused, with each fault in the log, and what runs stays as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from penstock.api.scaler.v1 import scaler_pb2
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault
from penstock.rpc.peers.stream import open_channel
from penstock.rpc.peers.unary import UnaryPeer
from penstock.service.local_models import ADDED_FILE
from penstock.service.settings import BadConfig
from penstock.stack.config_check import check_file
from penstock.stack.instance_groups import (
    LocalConfig,
    model_problems,
    read_local_config,
)
from penstock.stack.local_fleet import (
    LocalFleet,
    LocalProcess,
    cpu_count,
    default_processes,
    scaled_models,
    wanted_processes,
)
from penstock.stack.plan import DEFAULT_MODEL, StackPlan
from penstock.stack.process import LineSink
from penstock.stack.supervisor import LOG_NAME, Supervisor

LOOK_S = 1.0
"""Seconds between two looks at the files."""
SCALER_S = 5.0
"""Seconds between two questions to the scaler, which decides as often."""
SCALER = scaler_pb2.DESCRIPTOR.services_by_name["ScalerService"]


def load_config(config_file: Path, home: Path) -> LocalConfig:
    """The configuration, checked whole.

    Raises:
        BadConfig: names every fault with its place.
    """
    if problems := check_file(config_file, home):
        raise BadConfig([problem.line(config_file) for problem in problems])
    config = read_local_config(config_file, home)
    added = home / ADDED_FILE
    if faults := [f"{added}: {message}" for _, message in model_problems(config.added, home)]:
        raise BadConfig(faults)
    return config


@dataclass(frozen=True)
class Version:
    """Which version of the files was read: when each was written, and its size."""

    config: tuple[int, int]
    added: tuple[int, int]


def version_of(config_file: Path, home: Path) -> Version:
    """The version of the files as they are now."""
    return Version(_stamp(config_file), _stamp(home / ADDED_FILE))


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_size


class Follower:
    """Brings what runs in line with the configuration, again and again.

    Args:
        config: what was read at the start.
    """

    def __init__(
        self,
        plan: StackPlan,
        config: LocalConfig,
        supervisor: Supervisor,
        fleet: LocalFleet,
        log: LineSink,
    ) -> None:
        self._plan = plan
        self._config = config
        self._supervisor = supervisor
        self._fleet = fleet
        self._log = log
        self._version = version_of(plan.config_file, plan.home)
        self._asked = asyncio.Event()
        self._wanted: dict[str, int] = {}
        self._changing = asyncio.Lock()

    def read_again(self) -> None:
        """Read the files at the next look, whether or not they changed; for SIGHUP."""
        self._asked.set()

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_files())
            group.create_task(self._follow_scaler())

    async def _follow_files(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), LOOK_S)
            version = version_of(self._plan.config_file, self._plan.home)
            if self._asked.is_set() or version != self._version:
                self._asked.clear()
                self._version = version
                await self._read()

    async def _read(self) -> None:
        try:
            config = load_config(self._plan.config_file, self._plan.home)
        except BadConfig as error:
            for problem in error.problems:
                self._log(LOG_NAME, f"configuration refused, the old one stays: {problem}")
            return
        self._log(LOG_NAME, "configuration read again")
        self._config = config
        self._supervisor.reload()
        await self._apply()

    async def _follow_scaler(self) -> None:
        channel = open_channel(self._plan.addresses["scaler"], self._plan.tls)
        scaler = UnaryPeer(channel, SCALER, token=self._plan.token)
        try:
            while True:
                await asyncio.sleep(SCALER_S)
                wanted = await self._ask(scaler)
                if wanted != self._wanted:
                    self._wanted = wanted
                    await self._apply()
        finally:
            await scaler.close()

    async def _ask(self, scaler: UnaryPeer) -> dict[str, int]:
        """What the scaler wants, by model; what it wanted before where it does not answer."""
        wanted = dict[str, int]()
        for model in scaled_models(self._config):
            request = scaler_pb2.ListDecisionsRequest(pool=model, limit=1)
            deadline_s = asyncio.get_running_loop().time() + SCALER_S
            try:
                answer = await scaler.call("ListDecisions", request, Call(deadline_s=deadline_s))
            except Fault:
                answer = scaler_pb2.ListDecisionsResponse()
            if answer.decisions:
                wanted[model] = answer.decisions[0].wanted
            elif model in self._wanted:
                wanted[model] = self._wanted[model]
        return wanted

    async def _apply(self) -> None:
        # File and scaler may both ask for a change; the later one sees what both want.
        async with self._changing:
            await self._fleet.change_to(processes_of(self._plan, self._config, self._wanted))


def processes_of(
    plan: StackPlan, config: LocalConfig, wanted: Mapping[str, int]
) -> list[LocalProcess]:
    """What should run here besides the services; the pool that the scaler runs itself is its."""
    pools = {
        model: pool
        for model, pool in config.pools.items()
        if not (plan.own_pool and model == DEFAULT_MODEL)
    }
    config = replace(config, pools=pools)
    return wanted_processes(config, wanted, default_processes(plan), cpu_count())
