"""Who makes it so: the interface to whatever runs instances, the dry run, and children of this
process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from penstock.rpc.peers.stream import open_channel
from penstock.scaler.settings import ProcessActuator
from penstock.service.child_process import die_with_parent
from penstock.service.clock import Clock

log = logging.getLogger(__name__)
PROBE_S = 0.5
POLL_S = 0.2
WAIT_SHARE = 0.5
"""A replacement gets this share of the time that a notice gives (30 s at GCP and Azure, 120 s at
AWS); the rest is for draining.
"""

Drain = Callable[[str, str], Awaitable[None]]
"""Takes an instance's id and a reason; returns when the instance has nothing in flight or time is
up.
"""


@dataclass(frozen=True)
class FleetStatus:
    """What runs: instances asked for, and those of them that serve; `seen` is false where nobody
    looked and they are only believed to.
    """

    wanted: int
    ready: int
    seen: bool = True


class Actuator(Protocol):
    """Runs instances. `scale` begins the change and does not wait for it."""

    async def fleet(self) -> FleetStatus:
        """What runs now; raises OSError where nobody can be asked."""
        ...

    def on_demand(self, wanted: int) -> int:
        """How many of so many do not run on spot, by what is known now."""
        ...

    async def scale(self, wanted: int) -> None:
        """Have so many."""
        ...

    async def replace(self, instance: str, left_s: float) -> bool:
        """Start one more because `instance` will go in `left_s` seconds, and drain it once that
        serves or time gets short.

        Does not wait for either. False where the instance is not one of these, or whoever runs it
        replaces it by itself.
        """
        ...

    async def close(self) -> None:
        """Stop watching; children end."""
        ...


class DryRun:
    """Believes that what was decided runs. For KEDA, which acts itself, and for trials."""

    def __init__(self, first: int) -> None:
        self._wanted = first

    async def fleet(self) -> FleetStatus:
        return FleetStatus(self._wanted, self._wanted, seen=False)

    def on_demand(self, wanted: int) -> int:
        return wanted

    async def scale(self, wanted: int) -> None:
        self._wanted = wanted

    async def replace(self, instance: str, left_s: float) -> bool:
        return False

    async def close(self) -> None:
        return None


@dataclass
class _Child:
    """A process, and where it answers; `serves` is asked once and then believed."""

    process: asyncio.subprocess.Process
    address: str
    serves: bool


class LocalProcesses:
    """Instances as children of this process.

    It owns each child until `close`; what dies is started again at the next `scale`.

    Args:
        probe: whether a child that has a port serves.
        drain: asked before a child is ended.
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
        self._pool, self._config, self._clock = pool, config, clock
        self._drain, self._probe = drain, probe or healthy
        self._children: dict[str, _Child] = {}
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._numbers = 0

    async def fleet(self) -> FleetStatus:
        self._bury()
        serving = [await self._serves(child) for child in list(self._children.values())]
        beside = self._config.beside
        return FleetStatus(len(self._children) + beside, sum(serving) + beside)

    @property
    def instances(self) -> list[str]:
        """Ids of the children that are not leaving, the oldest first."""
        return list(self._children)

    def on_demand(self, wanted: int) -> int:
        return wanted

    async def scale(self, wanted: int) -> None:
        self._bury()
        own = max(0, wanted - self._config.beside)
        while len(self._children) < own:
            await self._start()
        while len(self._children) > own:
            self._leave(next(reversed(self._children)))

    async def replace(self, instance: str, left_s: float) -> bool:
        if instance not in self._children:
            return False
        self._leave(instance, after=await self._start(), left_s=left_s)
        return True

    async def close(self) -> None:
        for name in list(self._children):
            self._leave(name)
        await asyncio.gather(*self._leaving.values())

    def _bury(self) -> None:
        for name in [
            name for name, child in self._children.items() if child.process.returncode is not None
        ]:
            log.warning("%s ended with %s", name, self._children.pop(name).process.returncode)

    async def _serves(self, child: _Child) -> bool:
        if not child.serves:
            child.serves = await self._probe(child.address)
        return child.serves

    async def _start(self) -> _Child:
        self._numbers += 1
        name = f"{self._pool}-{self._numbers}"
        filled = {"number": str(self._numbers), "instance": name, "python": sys.executable}
        words = (*self._config.command, *self._config.env.values())
        address = ""
        if any("{port}" in word for word in words):
            filled["port"] = str(free_port())
            address = f"127.0.0.1:{filled['port']}"
        command = [_fill(part, filled) for part in self._config.command]
        env = {
            **os.environ,
            **{key: _fill(value, filled) for key, value in self._config.env.items()},
        }
        process = await asyncio.create_subprocess_exec(
            *die_with_parent(command), env=env, stdin=asyncio.subprocess.DEVNULL
        )
        child = self._children[name] = _Child(process, address, serves=not address)
        return child

    def _leave(self, name: str, after: _Child | None = None, left_s: float = 0.0) -> None:
        task = asyncio.create_task(
            self._end(name, self._children.pop(name), after, left_s), name=f"end {name}"
        )
        self._leaving[name] = task
        task.add_done_callback(lambda _: self._leaving.pop(name, None))

    async def _end(self, name: str, child: _Child, after: _Child | None, left_s: float) -> None:
        if after is not None:
            await await_replacement(lambda: self._serves_or_died(after), self._clock, left_s)
        if self._drain is not None:
            await self._drain(name, "spot_notice" if after is not None else "scale_down")
        process = child.process
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), self._config.grace_s)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _serves_or_died(self, child: _Child) -> bool:
        return child.process.returncode is not None or await self._serves(child)


async def await_replacement(
    serves: Callable[[], Awaitable[bool]], clock: Clock, left_s: float
) -> None:
    """Wait until a replacement serves, but leave the instance that goes in `left_s` seconds half of
    them to finish what it has.
    """
    end = clock.monotonic() + WAIT_SHARE * left_s
    while clock.monotonic() < end and not await serves():
        await clock.sleep(POLL_S)


def free_port() -> int:
    """A TCP port of this machine that nobody listens on now."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        return int(holder.getsockname()[1])


async def healthy(address: str) -> bool:
    """Whether the gRPC server there says that it serves."""
    async with open_channel(address) as channel:
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=PROBE_S
            )
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _fill(text: str, values: dict[str, str]) -> str:
    for key, value in values.items():
        text = text.replace(f"{{{key}}}", value)
    return text
