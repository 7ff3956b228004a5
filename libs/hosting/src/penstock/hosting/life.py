"""The life of one service in its own process: started, reloaded, drained, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeVar

from penstock.hosting.assembly import Assembly
from penstock.hosting.event_loop import watched
from penstock.hosting.outside import real_world
from penstock.hosting.service import Service
from penstock.otel.telemetry import NO_TELEMETRY, Telemetry
from penstock.service.clock import SystemClock
from penstock.service.large_blocks import settle_after_start
from penstock.service.program import run
from penstock.service.settings import ServiceSettings, reload_on_sighup

S = TypeVar("S", bound=ServiceSettings)


def run_service(assembly: Assembly[S]) -> None:
    """Run a service as this process until it is told to stop; exits as `program.run` says."""

    async def serve(settings: S) -> None:
        async with real_world(assembly.name, settings, edge=assembly.edge) as outside:
            await live(assembly.build(settings, outside), settings, outside.telemetry)

    run(assembly.name, assembly.settings, serve, assembly.question)


async def live(
    service: Service, settings: ServiceSettings, telemetry: Telemetry = NO_TELEMETRY
) -> None:
    """Serve until SIGTERM or SIGINT, then drain and stop; a second signal ends the grace."""
    stop, hurry = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (hurry if stop.is_set() else stop).set()

    with signals_to(on_signal):
        async with (
            serving(service, settings, hurry),
            watched([service], SystemClock(), telemetry),
        ):
            reload_on_sighup(service.prepare_reload)
            settle_after_start()
            await stop.wait()


@contextlib.contextmanager
def signals_to(on_signal: Callable[[], None]) -> Iterator[None]:
    """Call `on_signal` for each SIGTERM and SIGINT inside the block."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


@contextlib.asynccontextmanager
async def serving(
    service: Service, settings: ServiceSettings, hurry: asyncio.Event | None = None
) -> AsyncIterator[str]:
    """A service from open to close; yields the address of its own port.

    Its own port, the last, stops first and with the settings' grace, which `hurry` ends; the others
    stop at once after it.
    """
    async with contextlib.AsyncExitStack() as owned:
        owned.push_async_callback(service.close)
        await service.open()
        *others, own = service.ports
        for port in others:
            await port.start()
            owned.push_async_callback(port.stop)
        await own.start()
        owned.push_async_callback(own.stop, settings.grace_s, hurry)
        if service.ready is not None:
            await service.ready(own.address)
        yield own.address
        await service.drain()
