"""A cell: several services in one process, which call each other without a wire.

Each is the service that it is alone: made by its own `build`, with its own settings, ports, health,
spans and log lines. What a cell adds is their order. They start with those that are called, and
stop with those that call: a router finishes its calls while limiter, cache and batcher still serve
them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from penstock.hosting.assembly import Assembly
from penstock.hosting.cell_port import CellPort
from penstock.hosting.event_loop import watched
from penstock.hosting.life import serving, signals_to
from penstock.hosting.local_services import LocalServices
from penstock.hosting.outside import Outside, dialling, dialling_plainly, telemetry_of
from penstock.hosting.service import Apply, Service
from penstock.otel.exporters import Exporters
from penstock.service.clock import SystemClock
from penstock.service.large_blocks import settle_after_start
from penstock.service.logs import SERVICE
from penstock.service.settings import BadConfig, ServiceSettings, reload_on_sighup

PROCESS = "cell"
"""`service.name` of the metrics of a process that several services share."""
COLLECTOR = "telemetry"
"""The service that others export to."""


@dataclass(frozen=True)
class Member:
    """A service of a cell, not yet made."""

    assembly: Assembly[Any]
    settings: ServiceSettings


async def live_together(members: Sequence[Member]) -> None:
    """Serve until SIGTERM or SIGINT, then drain and stop; a second signal ends the grace.

    The grace of all together is the longest that one of them has.

    Args:
        members: callers before those whom they call.
    """
    stop, hurry = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (hurry if stop.is_set() else stop).set()

    with signals_to(on_signal):
        async with serving_together(members, hurry) as services:
            reload_on_sighup(lambda: prepare_all(services))
            settle_after_start()
            await stop.wait()
            grace_s = max(member.settings.grace_s for member in members)
            asyncio.get_running_loop().call_later(grace_s, hurry.set)


def prepare_all(services: Sequence[Service]) -> Apply:
    """Let every service check the configuration file; returns what puts it in force in all.

    Raises:
        BadConfig: with the problems of all that refuse it; none has changed.
    """
    problems: list[str] = []
    prepared: list[Apply] = []
    for service in services:
        try:
            prepared.append(service.prepare_reload())
        except BadConfig as error:
            problems += error.problems
    if problems:
        raise BadConfig(list(dict.fromkeys(problems)))

    def apply() -> None:
        for put_in_force in prepared:
            put_in_force()

    return apply


@contextlib.asynccontextmanager
async def serving_together(
    members: Sequence[Member], hurry: asyncio.Event | None = None
) -> AsyncIterator[Sequence[Service]]:
    """Services from open to close, in the order of `members`, which is that of stopping."""
    local = LocalServices(member.settings for member in members)
    async with _worlds(members) as worlds, contextlib.AsyncExitStack() as running:
        pairs = reversed(list(zip(members, worlds, strict=True)))
        started = []
        for member, world in pairs:
            hosted = _hosted(member, world, local, hurry)
            started.append(await running.enter_async_context(hosted))
            if member.assembly.name == COLLECTOR:
                running.push_async_callback(_flush, worlds)
        for service in started:
            if isinstance(own := service.ports[-1], CellPort):
                await own.cell_is_complete()
        async with watched(started, worlds[0].clock, worlds[0].telemetry):
            yield tuple(reversed(started))


@contextlib.asynccontextmanager
async def _hosted(
    member: Member, world: Outside, local: LocalServices, hurry: asyncio.Event | None
) -> AsyncIterator[Service]:
    """One service from open to close; everything that it starts logs under its name."""
    settings = member.settings
    token = SERVICE.set(member.assembly.name)
    try:
        outside = replace(
            world,
            dial=local.dialling(member.assembly.name, settings, world),
            dial_plainly=local.dialling_plainly(member.assembly.name, settings, world),
        )
        service: Service = member.assembly.build(settings, outside)
        if settings.cell_address and member.assembly.owns_instances:
            own = CellPort(service, settings, outside)
            service = replace(service, ports=(*service.ports[:-1], own))
        ports = (local.add(service, settings, outside), *service.ports)
        async with serving(replace(service, ports=ports), settings, hurry):
            yield service
    finally:
        SERVICE.reset(token)


@contextlib.asynccontextmanager
async def _worlds(members: Sequence[Member]) -> AsyncIterator[Sequence[Outside]]:
    """The real world of each service. What they recorded is flushed at the end, all at once, unless
    it was before.
    """
    names = [member.assembly.name for member in members]
    exporters = Exporters()
    worlds = [_world(member, _process_metrics(member, names), exporters) for member in members]
    try:
        yield worlds
    finally:
        await _flush(worlds)


async def _flush(worlds: Sequence[Outside]) -> None:
    """Export what the services recorded. Where telemetry is one of them, this comes when the others
    have stopped and telemetry still serves.
    """
    await asyncio.gather(*(asyncio.to_thread(world.telemetry.close) for world in worlds))


def _process_metrics(member: Member, names: Sequence[str]) -> str | None:
    """The name under which a member exports the metrics of the process, which are exported once:
    telemetry records those of its process by itself.
    """
    name = member.assembly.name
    if len(names) == 1:
        return name
    return PROCESS if name == names[0] and COLLECTOR not in names else None


def _world(member: Member, process: str | None, exporters: Exporters) -> Outside:
    assembly, settings = member.assembly, member.settings
    telemetry = telemetry_of(
        assembly.name, settings, edge=assembly.edge, process=process, exporters=exporters
    )
    clock = SystemClock()
    return Outside(
        telemetry,
        dialling(assembly.name, settings, clock, telemetry),
        clock,
        dial_plainly=dialling_plainly(assembly.name, settings, clock, telemetry),
    )
