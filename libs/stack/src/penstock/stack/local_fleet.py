"""The processes of instances and upstreams on this machine: what should run, and making it so.

What should run is a pure function of the configuration and of what the scaler wants; `LocalFleet`
starts and stops the difference to what runs.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from penstock.service.free_ports import free_address
from penstock.service.program import CannotStart
from penstock.stack.instance_groups import InstanceGroup, LocalConfig
from penstock.stack.plan import DEFAULT_MODEL, StackPlan
from penstock.stack.process import LineSink, Program
from penstock.stack.supervisor import LOG_NAME, Supervisor

INSTANCE, UPSTREAM = "inference_onnx_quantized", "inference_upstream"
DOCUMENTED = {INSTANCE: ("inference-1", "inference-2"), UPSTREAM: ("inference-upstream",)}
"""The names of documented ports, by package: those that come first get them."""


@dataclass(frozen=True)
class LocalProcess:
    """A process that should run.

    Attributes:
        name: the name of its process in the log.
        module: its service's package.
        settings: what it is told beside what every service is told.
        models: the models that it has to serve.
        entry: what its service reads of the configuration file; when it changes, it is restarted.
        program: the whole program, where the plan of the stack has it; empty settings then.
    """

    name: str
    module: str
    settings: tuple[tuple[str, str], ...] = ()
    models: tuple[str, ...] = ()
    entry: str = ""
    program: Program | None = None


def wanted_processes(
    config: LocalConfig, wanted: Mapping[str, int], defaults: Sequence[LocalProcess], cores: int
) -> list[LocalProcess]:
    """What should run.

    Args:
        wanted: instances that the scaler wants, by model.
        defaults: what runs where the file has no section `instances`.
        cores: CPUs of this machine.
    """
    processes = list(defaults) if config.groups is None else []
    for group in config.all_groups:
        count = instance_count(group, config, wanted, cores)
        processes += [_instance(group, number + 1) for number in range(count)]
    processes += [_upstream(name, entry) for name, entry in config.upstreams.items()]
    return processes


def instance_count(
    group: InstanceGroup, config: LocalConfig, wanted: Mapping[str, int], cores: int
) -> int:
    """Instances of a group: its own count, else that of its model's scaling pool, else one."""
    if group.count is not None:
        return group.count
    pool = config.pools.get(group.models[0])
    return 1 if pool is None else pool.count(wanted.get(group.models[0]), cores)


def scaled_models(config: LocalConfig) -> list[str]:
    """The models whose number of instances the scaler decides."""
    return [
        group.models[0]
        for group in config.all_groups
        if group.count is None and group.models[0] in config.pools
    ]


def default_processes(plan: StackPlan) -> list[LocalProcess]:
    """The instances of the plan itself."""
    return [
        LocalProcess(
            program.name,
            INSTANCE,
            models=tuple(program.env.get("PENSTOCK_MODELS", DEFAULT_MODEL).split(",")),
            program=program,
        )
        for program in plan.default_instances()
    ]


def _instance(group: InstanceGroup, number: int) -> LocalProcess:
    name = f"{group.label}-{number}"
    settings = {
        "instance_id": name,
        "models": ",".join(group.models),
        "compute_threads": str(group.compute_threads),
        "memory_budget_bytes": str(group.memory_budget_bytes),
    }
    return LocalProcess(name, INSTANCE, tuple(settings.items()), models=group.models)


def _upstream(name: str, entry: Mapping[str, object]) -> LocalProcess:
    settings = (("upstream", name), ("instance_id", name))
    return LocalProcess(
        f"upstream-{name}", UPSTREAM, settings, entry=json.dumps(entry, default=str)
    )


class LocalFleet:
    """Runs the processes that should run. Owner of what it started: the supervisor.

    Args:
        plan: what every process is told.
        log: takes a line about each change.
    """

    def __init__(self, supervisor: Supervisor, plan: StackPlan, log: LineSink) -> None:
        self._supervisor = supervisor
        self._plan = plan
        self._log = log
        self._running: dict[str, LocalProcess] = {}
        self._addresses: dict[str, str] = {}

    @property
    def running(self) -> Sequence[LocalProcess]:
        """What runs now."""
        return list(self._running.values())

    @property
    def addresses(self) -> Mapping[str, str]:
        """Where each process that runs now answers, by its name."""
        return {name: self._addresses[name] for name in self._running}

    def counts(self) -> dict[str, int]:
        """How many processes serve each model, upstreams aside."""
        return Counter(model for process in self._running.values() for model in process.models)

    async def start(self, processes: Sequence[LocalProcess]) -> None:
        """Start the first processes, all at once.

        Raises:
            CannotStart: one of them refused to start, or is not ready in time.
        """
        programs = []
        for process in processes:
            self._running[process.name] = process
            programs.append(self._program(process))
        await self._supervisor.start(tuple(programs))

    async def change_to(self, processes: Sequence[LocalProcess]) -> None:
        """Stop what should not run any more, and start what should; one that cannot be started is
        logged and left out, and tried again at the next change.
        """
        wanted = {process.name: process for process in processes}
        for name in list(self._running):
            if wanted.get(name) != self._running[name]:
                await self._stop(name)
        new = [process for name, process in wanted.items() if name not in self._running]
        await asyncio.gather(*(self._start(process) for process in new))

    async def _stop(self, name: str) -> None:
        """Let a process leave the router, finish its calls and end."""
        self._log(LOG_NAME, f"stopping {name}")
        del self._running[name]
        await self._supervisor.stop_one(name)

    async def _start(self, process: LocalProcess) -> None:
        self._log(LOG_NAME, f"starting {process.name}")
        self._running[process.name] = process
        try:
            await self._supervisor.start((self._program(process),), optional=True)
        except CannotStart as error:
            self._log(LOG_NAME, f"{error}; it is left out")
            self._running.pop(process.name, None)
            await self._supervisor.stop_one(process.name)

    def _program(self, process: LocalProcess) -> Program:
        """The process as a program, at an address that it keeps over restarts."""
        if process.program is not None:
            self._addresses[process.name] = process.program.address
            return process.program
        if process.name not in self._addresses:
            self._addresses[process.name] = self._next_address(process.module)
        address = self._addresses[process.name]
        settings = dict(process.settings)
        return self._plan.local_process(process.name, process.module, address, **settings)

    def _next_address(self, module: str) -> str:
        """The next documented port of its kind that no running process has, else a free one."""
        taken = {self._addresses.get(name) for name in self._running}
        documented = (self._plan.addresses[name] for name in DOCUMENTED[module])
        for address in documented:
            if address not in taken:
                return address
        return free_address()


def cpu_count() -> int:
    """CPUs of this machine."""
    return os.cpu_count() or 1
