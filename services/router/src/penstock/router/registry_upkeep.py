"""Keeping the registry: what other routers know is read at ticks that heartbeats share, and a lease
that is not renewed ends when it is due, not at the next tick.
"""

from __future__ import annotations

from typing import Protocol

from penstock.router.instances.registry import Registry
from penstock.service.clock import Clock, next_tick_s

LATE_S = 0.002
"""After the end of a lease: timers count in milliseconds, and a lease ends once it has passed."""


class Connections(Protocol):
    """The batchers' ends of instances."""

    async def detach(self, instance_id: str) -> None:
        """Give up what leads to an instance."""
        ...


class Learnt(Protocol):
    """What was learnt of instances."""

    def forget(self, instance_id: str) -> None:
        """An instance is gone."""
        ...


async def keep_registry(
    registry: Registry, connections: Connections, learnt: Learnt, clock: Clock, interval_s: float
) -> None:
    """Read and share every `interval_s`, and forget instances that are gone, for ever."""
    read_at_s = next_tick_s(clock.monotonic(), interval_s)
    while True:
        wake_at_s = min(read_at_s, registry.next_loss_s() + LATE_S)
        await clock.sleep(max(0.0, wake_at_s - clock.monotonic()))
        now_s = clock.monotonic()
        if now_s >= read_at_s:
            await registry.read_shared()
            read_at_s = next_tick_s(now_s, interval_s)
        for instance_id in registry.sweep():
            learnt.forget(instance_id)
            await connections.detach(instance_id)
