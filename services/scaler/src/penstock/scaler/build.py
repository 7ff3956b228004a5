"""The assembly of the scaler: pools with actuators, the loop, our service, KEDA's, notices."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

from google.protobuf.descriptor import ServiceDescriptor
from penstock.api.keda import externalscaler_pb2 as keda
from penstock.api.keda import externalscaler_pb2_grpc as keda_grpc
from penstock.api.scaler.v1 import scaler_pb2
from penstock.hosting.assembly import Assembly
from penstock.hosting.grpc_server import GrpcServer
from penstock.hosting.outside import Outside, dial_all
from penstock.hosting.service import Port, Service
from penstock.rpc.auth import services_only
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.peers.stream import Peer
from penstock.scaler.actuator_factory import make_actuator, with_local_pool
from penstock.scaler.api.keda_service import ExternalScaler
from penstock.scaler.api.notice_http import NoticePort
from penstock.scaler.api.scaler_service import ScalerServicer
from penstock.scaler.pool_settings import ScalingSection
from penstock.scaler.pools.autoscaler import Autoscaler
from penstock.scaler.pools.demand_intake import DemandIntake
from penstock.scaler.pools.demand_source import BATCHER, REGISTRY, TELEMETRY, DemandSource
from penstock.scaler.pools.drainer import Drainer
from penstock.scaler.pools.planner import PoolPlanner
from penstock.scaler.pools.pool import Pool
from penstock.scaler.pools.store import ScalerStore
from penstock.scaler.settings import ScalerSettings
from penstock.scaler.spot.instance_metadata import CLOUDS, wait_for_notice
from penstock.service.background import Background
from penstock.service.clock import Clock
from penstock.service.settings import load_section

NAME = "scaler"
SCALER = scaler_pb2.DESCRIPTOR.services_by_name["ScalerService"]


def build(settings: ScalerSettings, outside: Outside) -> Service:
    """Make the scaler.

    Raises:
        BadConfig: the configuration file cannot be used.
    """
    clock = outside.clock
    peers = Peers(outside)
    client = outside.open_store(settings.ledger_url) if settings.ledger_url else None
    store = ScalerStore(client, secrets.token_hex(8))
    autoscaler = _autoscaler(settings, outside, store, peers)
    servicer = ScalerServicer(autoscaler, clock)
    endpoint = Endpoint(SCALER, servicer, services_only(SCALER, settings.tokens))
    own = GrpcServer(NAME, settings, [endpoint], tracer=outside.telemetry, clock=clock)
    background = Background()

    async def open_() -> None:
        await autoscaler.load()
        background.start(autoscaler.run(settings.tick_s, settings.leader_ms), "scaling")
        if settings.metadata_url:
            background.start(_leave_on_notice(settings, autoscaler, clock), "metadata")

    async def close() -> None:
        await background.close()
        await autoscaler.close()
        await peers.close()
        if client is not None:
            await client.aclose()

    ports = [*_other_ports(settings, autoscaler, clock), own]
    return Service(NAME, ports, [endpoint], open=open_, close=close)


class Peers:
    """Connections to other services. Owner: the service, which closes them at its end."""

    def __init__(self, outside: Outside) -> None:
        self._outside = outside
        self._made: list[Peer] = []

    def connect(self, address: str, service: ServiceDescriptor) -> Peer | None:
        """Return a peer at the address, or for all at addresses with commas between; None where it
        is empty.
        """
        if not address:
            return None
        self._made.append(dial_all(self._outside.dial, address, service))
        return self._made[-1]

    async def close(self) -> None:
        """Close all connections."""
        for peer in self._made:
            await peer.close()


def _autoscaler(
    settings: ScalerSettings, outside: Outside, store: ScalerStore, peers: Peers
) -> Autoscaler:
    clock = outside.clock
    registry = peers.connect(settings.registry_address or settings.router_address, REGISTRY)
    drainer = Drainer(registry, clock) if registry is not None else None
    drain = drainer.drain if drainer is not None else None
    section = load_section(settings.config_file, "scaling", ScalingSection)
    pools = []
    for config in with_local_pool(section.pools, settings):
        state = store.offerings_state(config.name)
        actuator = make_actuator(config, clock, drain, state, settings.tls)
        pool = Pool(PoolPlanner(config), actuator)
        pool.register_gauges(outside.telemetry)
        pools.append(pool)
    return Autoscaler(
        pools,
        store,
        clock,
        _demand(settings, peers, registry, clock),
        drainer.stop_requests if drainer is not None else None,
    )


def _demand(
    settings: ScalerSettings, peers: Peers, registry: Peer | None, clock: Clock
) -> DemandIntake | None:
    """Demand from other services; None where none of them is configured."""
    batcher = peers.connect(settings.batcher_address, BATCHER)
    telemetry = peers.connect(settings.telemetry_address, TELEMETRY)
    if batcher is None and telemetry is None and registry is None:
        return None
    return DemandIntake(DemandSource(batcher, telemetry, registry, clock), clock)


def _other_ports(settings: ScalerSettings, autoscaler: Autoscaler, clock: Clock) -> Iterator[Port]:
    """KEDA's port and the one for notices, each on an address of its own."""
    if settings.keda_listen:
        yield keda_port(settings, autoscaler, clock)
    if settings.notice_listen:
        yield NoticePort(
            settings.notice_listen,
            lambda notice: autoscaler.handle_notice(notice.instance, notice.at_s),
            settings.notice_secret,
            clock,
        )


def keda_port(settings: ScalerSettings, autoscaler: Autoscaler, clock: Clock) -> GrpcServer:
    """Return the port of KEDA's external scaler. KEDA sends no credentials."""
    scaler = ExternalScaler(autoscaler, clock)
    add = keda_grpc.add_ExternalScalerServicer_to_server
    return GrpcServer(
        "scaler-keda",
        settings.model_copy(update={"listen": settings.keda_listen}),
        [],
        foreign=[lambda server: add(scaler, server)],
        foreign_names=[keda.DESCRIPTOR.services_by_name["ExternalScaler"].full_name],
    )


async def _leave_on_notice(settings: ScalerSettings, autoscaler: Autoscaler, clock: Clock) -> None:
    """Poll the cloud's metadata service, and leave when this machine will be terminated."""
    names = list(CLOUDS) if settings.metadata_cloud == "any" else [settings.metadata_cloud]
    services = [CLOUDS[name](settings.metadata_url) for name in names]
    await wait_for_notice(services, lambda _: autoscaler.leave(), clock)


ASSEMBLY = Assembly(
    NAME, ScalerSettings, build, "How many instances should there be, and of which kind?"
)
