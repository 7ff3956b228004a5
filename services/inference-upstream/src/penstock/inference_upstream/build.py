"""The assembly of the service before one upstream, as production, tests and benchmarks use it."""

from __future__ import annotations

from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.hosting.assembly import Assembly
from penstock.hosting.grpc_server import GrpcServer
from penstock.hosting.outside import Outside
from penstock.hosting.registration import Registration
from penstock.hosting.service import Service
from penstock.inference_upstream.adapters import ADAPTERS, wire_of
from penstock.inference_upstream.api.inference_service import UpstreamServicer
from penstock.inference_upstream.settings import Upstream, UpstreamSettings, UpstreamsSection
from penstock.inference_upstream.transport.client import Client
from penstock.rpc.auth import services_only
from penstock.rpc.endpoint import Endpoint
from penstock.service.background import Background
from penstock.service.settings import BadConfig, load_section
from penstock.tasks.wire_request import CAPABILITIES

NAME = "inference-upstream"
SERVICE = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"]


def build(settings: UpstreamSettings, outside: Outside) -> Service:
    """Make the service.

    Raises:
        BadConfig: the `upstreams` section has an unknown key or a bad value, or no such upstream,
            or the upstream's key cannot be read, or a model is to do what no adapter can.
    """
    section = load_section(settings.config_file, "upstreams", UpstreamsSection)
    upstream = section.named(settings.upstream)
    _check_tasks(upstream)
    client = Client(upstream, outside.telemetry)
    servicer = UpstreamServicer(client, outside.clock, outside.telemetry)
    endpoint = Endpoint(
        SERVICE,
        servicer,
        services_only(SERVICE, settings.tokens, address=lambda: settings.advertise or port.address),
    )
    port = GrpcServer(NAME, settings, [endpoint], tracer=outside.telemetry, clock=outside.clock)
    registration = Registration(
        settings.registry_address or settings.router_address,
        lambda address: _instance(settings, upstream, servicer, address),
        outside.dial,
        outside.clock,
        load=servicer.load,
    )
    background = Background()

    async def start_sweeping() -> None:
        background.start(client.sweep_forever(outside.clock), "connection sweeper")

    async def close() -> None:
        await background.close()
        await client.close()

    return Service(
        NAME,
        [port],
        [endpoint],
        open=start_sweeping,
        ready=registration.start,
        drain=registration.leave,
        close=close,
    )


def _check_tasks(upstream: Upstream) -> None:
    unserved = [
        f"upstreams: {upstream.name}: model {model.name}: this service cannot do {task}; it does "
        f"{', '.join(ADAPTERS)}"
        for model in upstream.models
        for task in model.tasks
        if task not in ADAPTERS
    ]
    if unserved:
        raise BadConfig(unserved)


def _instance(
    settings: UpstreamSettings, upstream: Upstream, servicer: UpstreamServicer, address: str
) -> router_pb2.Instance:
    """How the service presents itself to the router."""
    wire = wire_of(upstream)
    return router_pb2.Instance(
        id=settings.instance_id or upstream.name,
        address=settings.advertise or address,
        batcher_address=settings.batcher_address,
        models=servicer.models(),
        capabilities=[*(["resumes"] if upstream.resumes else []), CAPABILITIES[wire.number]],
        concurrency=upstream.concurrency,
        tenancy=router_pb2.TENANCY_UPSTREAM,
        zone=settings.zone,
    )


ASSEMBLY = Assembly(NAME, UpstreamSettings, build, "What does the upstream say?")
