"""Who makes it so: the interface to whatever runs instances, the dry run, and children of this process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from penstock.core.clock import Clock
from penstock.scaler.config import ProcessActuator

log = logging.getLogger(__name__)

Drain = Callable[[str, str], Awaitable[None]]
"""Takes an instance's id and a reason; returns when the instance has nothing in flight or time is up."""


@dataclass(frozen=True)
class Fleet:
    """What runs: instances asked for, and those of them that serve."""

    wanted: int
    ready: int


class Actuator(Protocol):
    """Runs instances. `scale` begins the change and does not wait for it."""

    async def fleet(self) -> Fleet:
        """What runs now; raises OSError where nobody can be asked."""
        ...

    async def scale(self, wanted: int, on_demand: int) -> None:
        """Have so many, `on_demand` of them not on spot."""
        ...

    async def replace(self, instance: str) -> bool:
        """Start one more because `instance` will go; False where nothing is started."""
        ...

    async def close(self) -> None:
        """Stop watching; children end."""
        ...


class DryRun:
    """Believes that what was decided runs. For KEDA, which acts itself, and for trials."""

    def __init__(self, first: int) -> None:
        self._wanted = first

    async def fleet(self) -> Fleet:
        return Fleet(self._wanted, self._wanted)

    async def scale(self, wanted: int, on_demand: int) -> None:
        self._wanted = wanted

    async def replace(self, instance: str) -> bool:
        return False

    async def close(self) -> None:
        return None


class LocalProcesses:
    """Instances as children of this process. It owns each child until `close`; what dies is started again at the next `scale`.

    Args:
        ready: ids of the instances that serve, as the router sees them; None: a child that runs is ready.
        drain: asked before a child is ended.
    """

    def __init__(
        self,
        pool: str,
        config: ProcessActuator,
        clock: Clock,
        *,
        drain: Drain | None = None,
        ready: Callable[[], Awaitable[set[str]]] | None = None,
    ) -> None:
        self._pool, self._config, self._clock = pool, config, clock
        self._drain, self._ready = drain, ready
        self._children: dict[str, asyncio.subprocess.Process] = {}
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._numbers = 0

    async def fleet(self) -> Fleet:
        self._bury()
        if self._ready is None:
            return Fleet(len(self._children), len(self._children))
        serving = await self._ready()
        return Fleet(len(self._children), len(serving & set(self._children)))

    @property
    def instances(self) -> list[str]:
        """Ids of the children that are not leaving, the oldest first."""
        return list(self._children)

    async def scale(self, wanted: int, on_demand: int) -> None:
        self._bury()
        while len(self._children) < wanted:
            await self._start()
        while len(self._children) > wanted:
            self._leave(next(reversed(self._children)))

    async def replace(self, instance: str) -> bool:
        if instance not in self._children:
            return False
        await self._start()
        self._leave(instance)
        return True

    async def close(self) -> None:
        for name in list(self._children):
            self._leave(name, drained=False)
        await asyncio.gather(*self._leaving.values())

    def _bury(self) -> None:
        for name in [name for name, child in self._children.items() if child.returncode is not None]:
            status = self._children.pop(name).returncode
            log.warning("%s ended with %s", name, status)

    async def _start(self) -> None:
        self._numbers += 1
        name = f"{self._pool}-{self._numbers}"
        filled = {"number": str(self._numbers), "instance": name}
        command = [_fill(part, filled) for part in self._config.command]
        env = {**os.environ, **{key: _fill(value, filled) for key, value in self._config.env.items()}}
        self._children[name] = await asyncio.create_subprocess_exec(
            *command, env=env, stdin=asyncio.subprocess.DEVNULL, start_new_session=True
        )

    def _leave(self, name: str, drained: bool = True) -> None:
        task = asyncio.create_task(self._end(name, self._children.pop(name), drained), name=f"end {name}")
        self._leaving[name] = task
        task.add_done_callback(lambda _: self._leaving.pop(name, None))

    async def _end(self, name: str, child: asyncio.subprocess.Process, drained: bool) -> None:
        if drained and self._drain is not None:
            await self._drain(name, "scale_down")
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
        try:
            await asyncio.wait_for(child.wait(), self._config.grace_s)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()


def _fill(text: str, values: dict[str, str]) -> str:
    for key, value in values.items():
        text = text.replace(f"{{{key}}}", value)
    return text
