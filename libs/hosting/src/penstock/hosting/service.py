"""A service as it is assembled: what it serves and where, and what to do in its life.

Life: `open` → ports are bound, in order → `ready` → serving → told to stop: `drain`, ports stop
with a grace → `close`. Whatever fails on the way, `close` runs for a service whose `open` began.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

from penstock.rpc.endpoint import Endpoint

Hook = Callable[[], Awaitable[None]]
Apply = Callable[[], None]
"""Puts what was read and checked in force; cannot fail."""
T = TypeVar("T")


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


@runtime_checkable
class ReportsStalls(Protocol):
    """A port whose health tells of stalls of the event loop."""

    async def set_stalling(self, stalling: bool) -> None:
        """Tell whether the event loop is stalling."""
        ...


async def nothing() -> None:
    """A hook that has nothing to do."""


def no_change() -> None:
    """What a service applies that reads no configuration file."""


def reloading(read: Callable[[], T], put_in_force: Callable[[T], None]) -> Callable[[], Apply]:
    """The `prepare_reload` of a service.

    Args:
        read: reads and checks the sections; raises BadConfig.
        put_in_force: takes what `read` has returned, and cannot fail.
    """

    def prepare() -> Apply:
        checked = read()
        return lambda: put_in_force(checked)

    return prepare


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
    prepare_reload: Callable[[], Apply] = lambda: no_change
    """The configuration file may have changed: read and check it. Raises BadConfig; nothing changes
    before what it returns is called.
    """
