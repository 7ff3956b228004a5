"""Instances as child processes of the scaler."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from penstock.rpc.peers.stream import open_channel
from penstock.scaler.actuate.actuator import Drain, FleetStatus, wait_for_replacement
from penstock.scaler.actuator_settings import ProcessActuator
from penstock.service.child_process import die_with_parent
from penstock.service.clock import Clock
from penstock.service.free_ports import free_port
from penstock.service.tls_files import TlsSource

log = logging.getLogger(__name__)

PROBE_TIMEOUT_S = 0.5


@dataclass
class _Child:
    """A process and its address; empty where it has no port, and then it serves at once.

    `is_serving` stays true once the process was seen to serve.
    """

    process: asyncio.subprocess.Process
    address: str
    is_serving: bool


class LocalProcesses:
    """Instances as child processes; see `Actuator`.

    Owns each child until `close`. A child that died is replaced at the next `scale`.

    Args:
        pool: the pool's name, from which instances are named.
        drain: called before a child is stopped.
        probe: returns whether the child at an address serves.
    """

    def __init__(
        self,
        pool: str,
        config: ProcessActuator,
        clock: Clock,
        *,
        drain: Drain | None = None,
        probe: Callable[[str], Awaitable[bool]] | None = None,
    ) -> None:
        self._pool = pool
        self._config = config
        self._clock = clock
        self._drain = drain
        self._probe = probe or is_serving
        self._children: dict[str, _Child] = {}
        self._stopping: dict[str, asyncio.Task[None]] = {}
        self._started = 0

    async def status(self) -> FleetStatus:
        self._remove_dead()
        serving = [await self._serves(child) for child in list(self._children.values())]
        others = self._config.unmanaged_instances
        return FleetStatus(len(self._children) + others, sum(serving) + others)

    @property
    def instances(self) -> list[str]:
        """Ids of the children that are not being stopped, the oldest first."""
        return list(self._children)

    @property
    def process_ids(self) -> dict[str, int]:
        """Process ids of those children, by instance id."""
        return {name: child.process.pid for name, child in self._children.items()}

    def on_demand_count(self, wanted: int) -> int:
        return wanted

    async def scale(self, wanted: int) -> None:
        self._remove_dead()
        own = max(0, wanted - self._config.unmanaged_instances)
        while len(self._children) < own:
            await self._start()
        while len(self._children) > own:
            self._stop(next(reversed(self._children)))

    async def replace(self, instance: str, remaining_s: float) -> bool:
        if instance not in self._children:
            return False
        self._stop(instance, replacement=await self._start(), remaining_s=remaining_s)
        return True

    async def close(self) -> None:
        for name in list(self._children):
            self._stop(name)
        await asyncio.gather(*self._stopping.values())

    def _remove_dead(self) -> None:
        for name, child in list(self._children.items()):
            if child.process.returncode is not None:
                log.warning("%s ended with status %s", name, child.process.returncode)
                del self._children[name]

    async def _serves(self, child: _Child) -> bool:
        if not child.is_serving:
            child.is_serving = await self._probe(child.address)
        return child.is_serving

    async def _start(self) -> _Child:
        self._started += 1
        name = f"{self._pool}-{self._started}"
        values = {"number": str(self._started), "instance": name, "python": sys.executable}
        config = self._config
        address = ""
        if any("{port}" in text for text in (*config.command, *config.env.values())):
            values["port"] = str(free_port())
            address = f"127.0.0.1:{values['port']}"
        command = [_filled(part, values) for part in config.command]
        own_env = {key: _filled(value, values) for key, value in config.env.items()}
        process = await asyncio.create_subprocess_exec(
            *die_with_parent(command),
            env={**os.environ, **own_env},
            stdin=asyncio.subprocess.DEVNULL,
        )
        child = _Child(process, address, is_serving=not address)
        self._children[name] = child
        return child

    def _stop(self, name: str, replacement: _Child | None = None, remaining_s: float = 0.0) -> None:
        """Drain and end a child, in a task; with a replacement, once that serves."""
        work = self._end(name, self._children.pop(name), replacement, remaining_s)
        task = asyncio.create_task(work, name=f"stop {name}")
        self._stopping[name] = task
        task.add_done_callback(lambda _: self._stopping.pop(name, None))

    async def _end(
        self, name: str, child: _Child, replacement: _Child | None, remaining_s: float
    ) -> None:
        reason = "scale_down"
        if replacement is not None:
            reason = "spot_notice"
            await wait_for_replacement(
                lambda: self._serves_or_died(replacement), self._clock, remaining_s
            )
        if self._drain is not None:
            await self._drain(name, reason)
        await _terminate(child.process, self._config.grace_s)

    async def _serves_or_died(self, child: _Child) -> bool:
        return child.process.returncode is not None or await self._serves(child)


async def _terminate(process: asyncio.subprocess.Process, grace_s: float) -> None:
    """End a process by SIGTERM, and by SIGKILL once the grace is over."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), grace_s)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def is_serving(address: str, tls: TlsSource | None = None) -> bool:
    """Return whether the health check of the gRPC server at this address says SERVING."""
    async with open_channel(address, tls) as channel:
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=PROBE_TIMEOUT_S
            )
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _filled(text: str, values: dict[str, str]) -> str:
    for key, value in values.items():
        text = text.replace(f"{{{key}}}", value)
    return text
