"""The hall: configuration, servicer, server. `python -m penstock.batcher`."""

from __future__ import annotations

from functools import partial

from penstock.api.batcher.v1 import batcher_pb2
from penstock.batcher.adapters import INFERENCE
from penstock.batcher.config import BatcherSettings, BatchingSection
from penstock.batcher.servicer import BatcherServicer
from penstock.core.auth import internal
from penstock.core.clock import SystemClock
from penstock.core.config import load_section, watch_sighup
from penstock.core.door import Door
from penstock.core.exporting import start_telemetry
from penstock.core.hop import connect
from penstock.core.program import run
from penstock.core.server import Server

SERVICE = batcher_pb2.DESCRIPTOR.services_by_name["BatcherService"]


async def serve(settings: BatcherSettings) -> None:
    """Serve until told to stop."""
    clock = SystemClock()
    section = load_section(settings.config_file, "batching", BatchingSection)
    async with start_telemetry("batcher", settings) as telemetry:
        dial = partial(connect, service=INFERENCE, token=settings.internal_token, clock=clock, telemetry=telemetry)
        servicer = BatcherServicer(section, dial, clock, telemetry)
        watch_sighup(lambda: servicer.reload(load_section(settings.config_file, "batching", BatchingSection)))
        door = Door(SERVICE, servicer, internal(settings.internal_token))
        server = Server("batcher", settings, [door], telemetry=telemetry, clock=clock)
        await server.start()
        await server.wait()
        await servicer.close()


def main() -> None:
    run("batcher", BatcherSettings, serve, "Close the batch now, or wait? Who goes first?")


if __name__ == "__main__":
    main()
