"""The hall: configuration, pool, door. `python -m penstock.inference_upstream`."""

from __future__ import annotations

import asyncio

from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.inference_upstream.api.inference_service import UpstreamServicer
from penstock.inference_upstream.settings import UpstreamSettings, UpstreamsSection
from penstock.inference_upstream.transport.client import Client
from penstock.otel.start import start_telemetry
from penstock.rpc.auth import internal
from penstock.rpc.endpoint import Door
from penstock.rpc.registration import Registrar
from penstock.rpc.server import Server
from penstock.service.clock import SystemClock
from penstock.service.program import run
from penstock.service.settings import load_section

SERVICE = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"]


async def serve(settings: UpstreamSettings) -> None:
    """Serve until told to stop."""
    clock = SystemClock()
    upstream = load_section(settings.config_file, "upstreams", UpstreamsSection).named(
        settings.upstream
    )
    async with start_telemetry("inference-upstream", settings) as telemetry:
        client = Client(upstream, telemetry)
        servicer = UpstreamServicer(client, clock, telemetry)
        door = Door(SERVICE, servicer, internal(settings.internal_token))
        server = Server("inference-upstream", settings, [door], tracer=telemetry, clock=clock)
        await server.start()
        keeper = asyncio.create_task(client.keep(clock), name="connection keeper")
        registrar = None
        if settings.router_address:
            instance = router_pb2.Instance(
                id=settings.instance_id or upstream.name,
                address=settings.advertise or server.address,
                batcher_address=settings.batcher_address,
                models=servicer.models(),
                capabilities=["resumes"] if upstream.resumes else [],
                concurrency=upstream.concurrency,
                tenancy=router_pb2.TENANCY_UPSTREAM,
                zone=settings.zone,
            )
            registrar = Registrar(
                settings.router_address, instance, settings.internal_token, servicer.load
            )
            registrar.start()
        await server.wait(before_stop=registrar.leave if registrar else None)
        keeper.cancel()
        await asyncio.wait([keeper])
        await client.close()


def main() -> None:
    run("inference-upstream", UpstreamSettings, serve, "What does the upstream say?")


if __name__ == "__main__":
    main()
