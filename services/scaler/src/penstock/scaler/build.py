"""The assembly of the scaler: pools with actuators, the loop, our service, KEDA's, notices."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

from google.protobuf.descriptor import ServiceDescriptor
from penstock.api.keda import externalscaler_pb2 as keda
from penstock.api.keda import externalscaler_pb2_grpc as keda_grpc
from penstock.api.scaler.v1 import scaler_pb2
from penstock.hosting.grpc_server import GrpcServer
from penstock.hosting.outside import Outside
from penstock.hosting.service import Port, Service
from penstock.rpc.auth import internal
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.peers.stream import Peer
from penstock.scaler.actuator_factory import actuator, local_pools
from penstock.scaler.api.keda_service import ExternalScaler
from penstock.scaler.api.notice_http import NoticePort
from penstock.scaler.api.scaler_service import ScalerServicer
from penstock.scaler.pools.autoscaler import Autoscaler
from penstock.scaler.pools.store import (
    BATCHER,
    REGISTRY,
    TELEMETRY,
    DemandSource,
    Drainer,
    ScalerStore,
)
from penstock.scaler.settings import ScalerSettings, ScalingSection
from penstock.scaler.spot.instance_metadata import CLOUDS, watch
from penstock.service.background import Background
from penstock.service.clock import Clock
from penstock.service.settings import load_section

NAME = "scaler"
SCALER = scaler_pb2.DESCRIPTOR.services_by_name["ScalerService"]


def build(settings: ScalerSettings, outside: Outside) -> Service:
    """Make the scaler; raises BadConfig."""
    clock = outside.clock
    peers = Peers(outside)
    registry = peers.to(settings.router_address, REGISTRY)
    demand = DemandSource(
        peers.to(settings.batcher_address, BATCHER),
        peers.to(settings.telemetry_address, TELEMETRY),
        clock,
        registry,
    )
    client = outside.open_store(settings.redis_url) if settings.redis_url else None
    store = ScalerStore(client, secrets.token_hex(8))
    engine = _engine(settings, outside, store, demand, registry)
    endpoint = Endpoint(SCALER, ScalerServicer(engine, clock), internal(settings.internal_token))
    own = GrpcServer(NAME, settings, [endpoint], tracer=outside.telemetry, clock=clock)
    background = Background()

    async def open_() -> None:
        await engine.recall()
        background.start(engine.run(settings.tick_s, settings.leader_ms), "scaling")
        if settings.metadata_url:
            background.start(_watch_machine(settings, engine, clock), "metadata")

    async def close() -> None:
        await background.close()
        await engine.close()
        await peers.close()
        if client is not None:
            await client.aclose()

    ports = [*_other_ports(settings, engine, clock), own]
    return Service(NAME, ports, [endpoint], open=open_, close=close)


class Peers:
    """Connections to the services that the scaler asks; one without an address is not asked."""

    def __init__(self, outside: Outside) -> None:
        self._outside = outside
        self._made: list[Peer] = []

    def to(self, address: str, service: ServiceDescriptor) -> Peer | None:
        """A peer for the address; None where it is empty."""
        if not address:
            return None
        self._made.append(self._outside.dial(address, service))
        return self._made[-1]

    async def close(self) -> None:
        """Close every connection."""
        for peer in self._made:
            await peer.close()


def _engine(
    settings: ScalerSettings,
    outside: Outside,
    store: ScalerStore,
    demand: DemandSource,
    registry: Peer | None,
) -> Autoscaler:
    section = load_section(settings.config_file, "scaling", ScalingSection)
    pools = local_pools(section.pools, settings)
    drainer = Drainer(registry, outside.clock) if registry is not None else None
    drain, begin = (drainer.drain, drainer.begin) if drainer is not None else (None, None)
    actuators = {
        pool.name: actuator(pool, outside.clock, drain, store.zones(pool.name)) for pool in pools
    }
    return Autoscaler(pools, actuators, store, outside.clock, demand, outside.telemetry, begin)


def _other_ports(settings: ScalerSettings, engine: Autoscaler, clock: Clock) -> Iterator[Port]:
    """KEDA's port and the one for notices, each on an address of its own."""
    if settings.keda_listen:
        yield keda_port(settings, engine, clock)
    if settings.notice_listen:
        yield NoticePort(
            settings.notice_listen,
            lambda notice: engine.replace(notice.instance, notice.at_s),
            settings.notice_secret,
            clock,
        )


def keda_port(settings: ScalerSettings, engine: Autoscaler, clock: Clock) -> GrpcServer:
    """KEDA's external scaler; it brings no credentials."""
    scaler = ExternalScaler(engine, clock)
    add = keda_grpc.add_ExternalScalerServicer_to_server
    return GrpcServer(
        "scaler-keda",
        settings.model_copy(update={"listen": settings.keda_listen}),
        [],
        foreign=[lambda server: add(scaler, server)],
        foreign_names=[keda.DESCRIPTOR.services_by_name["ExternalScaler"].full_name],
    )


async def _watch_machine(settings: ScalerSettings, engine: Autoscaler, clock: Clock) -> None:
    """Ask the cloud's metadata service whether this machine will be taken away."""
    asked = list(CLOUDS) if settings.metadata_cloud == "any" else [settings.metadata_cloud]
    services = [CLOUDS[name](settings.metadata_url) for name in asked]
    await watch(services, lambda _: engine.leave(), clock)
