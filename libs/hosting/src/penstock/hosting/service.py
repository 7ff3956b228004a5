"""A service as it is assembled: what it serves and where, and what to do in its life.

Life: `open` → ports are bound, in order → `ready` → serving → told to stop: `drain`, ports stop
with a grace → `close`. Whatever fails on the way, `close` runs for a service whose `open` began.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from penstock.rpc.endpoint import Endpoint

Hook = Callable[[], Awaitable[None]]


class Port(Protocol):
    """An address that is served."""

    @property
    def address(self) -> str:
        """Where it is reached, `host:port` or `unix:/path`; once started, with the real port."""
        ...

    async def start(self) -> object:
        """Bind and serve.

        Raises:
            CannotStart: the address is in use or is not one of this machine.
        """
        ...

    async def stop(self, grace_s: float | None = None, hurry: asyncio.Event | None = None) -> None:
        """Refuse new calls, give those in flight `grace_s` seconds or until `hurry` is set, end."""
        ...


async def nothing() -> None:
    """A hook that has nothing to do."""


@dataclass(frozen=True)
class Service:
    """One assembled service. Owner: whoever runs it."""

    name: str
    ports: Sequence[Port]
    """In the order in which they open; the last one is the service's own, whose address counts."""
    endpoints: Sequence[Endpoint] = ()
    """What the own port serves, for callers in the same process."""
    open: Hook = nothing
    """Before any port is bound: load, connect, begin background work."""
    ready: Callable[[str], Awaitable[None]] | None = None
    """Once all ports are bound, with the own port's address: register."""
    drain: Hook = nothing
    """Before the ports stop, while calls are still served: deregister."""
    close: Hook = nothing
    """After the last call: end background work, give back what is owned."""
    reload: Callable[[], None] = lambda: None
    """The configuration file may have changed; raises BadConfig and keeps the old values."""
