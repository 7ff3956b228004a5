"""The hall: configuration, servicer, server. `python -m penstock.batcher`."""

from __future__ import annotations

from functools import partial

from penstock.api.batcher.v1 import batcher_pb2
from penstock.batcher.api.batcher_service import BatcherServicer
from penstock.batcher.instance import INFERENCE
from penstock.batcher.settings import BatcherSettings, BatchingSection
from penstock.otel.start import start_telemetry
from penstock.rpc.auth import internal
from penstock.rpc.endpoint import Door
from penstock.rpc.peers.stream import connect
from penstock.rpc.server import Server
from penstock.service.clock import SystemClock
from penstock.service.program import run
from penstock.service.settings import load_section, watch_sighup

SERVICE = batcher_pb2.DESCRIPTOR.services_by_name["BatcherService"]


async def serve(settings: BatcherSettings) -> None:
    """Serve until told to stop."""
    clock = SystemClock()
    section = load_section(settings.config_file, "batching", BatchingSection)
    async with start_telemetry("batcher", settings) as telemetry:
        dial = partial(
            connect, service=INFERENCE, token=settings.internal_token, clock=clock, tracer=telemetry
        )
        servicer = BatcherServicer(section, dial, clock, telemetry)
        watch_sighup(
            lambda: servicer.reload(load_section(settings.config_file, "batching", BatchingSection))
        )
        door = Door(SERVICE, servicer, internal(settings.internal_token))
        server = Server("batcher", settings, [door], tracer=telemetry, clock=clock)
        await server.start()
        await server.wait()
        await servicer.close()


def main() -> None:
    run("batcher", BatcherSettings, serve, "Close the batch now, or wait? Who goes first?")


if __name__ == "__main__":
    main()
