"""The hall: configuration, pools with their actuators, the loop, doors.

`python -m penstock.scaler`, or `... replay trace.csv`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shlex
import sys
from collections.abc import Sequence

from google.protobuf.descriptor import ServiceDescriptor
from penstock.api.keda import externalscaler_pb2 as keda
from penstock.api.keda import externalscaler_pb2_grpc as keda_grpc
from penstock.api.scaler.v1 import scaler_pb2
from penstock.otel.start import start_telemetry
from penstock.rpc.auth import internal
from penstock.rpc.endpoint import Door
from penstock.rpc.peers.stream import Peer, open_channel
from penstock.rpc.peers.unary import UnaryPeer
from penstock.rpc.server import Server
from penstock.scaler.actuate.actuators import Actuator, Drain, DryRun, LocalProcesses
from penstock.scaler.actuate.aws import AutoScalingGroups
from penstock.scaler.actuate.kubernetes import KubernetesScale
from penstock.scaler.api.keda_service import ExternalScaler
from penstock.scaler.api.notice_http import NoticeDoor
from penstock.scaler.api.scaler_service import ScalerServicer
from penstock.scaler.pools.engine import Engine
from penstock.scaler.pools.sources import BATCHER, REGISTRY, TELEMETRY, Demand, Drainer, Store
from penstock.scaler.replay import replay
from penstock.scaler.settings import (
    AwsActuator,
    AwsSpotActuator,
    KubernetesActuator,
    NoActuator,
    PoolConfig,
    ProcessActuator,
    ScalerSettings,
    ScalingSection,
)
from penstock.scaler.spot.aws import Ec2Machines, places
from penstock.scaler.spot.decision import SpotKnobs
from penstock.scaler.spot.fleet import Memory, SpotFleet
from penstock.scaler.spot.instance_metadata import CLOUDS, watch
from penstock.scaler.spot.placement import PlanKnobs
from penstock.service.clock import Clock, SystemClock
from penstock.service.program import run
from penstock.service.settings import load_section
from penstock.service.store import open_redis

SCALER = scaler_pb2.DESCRIPTOR.services_by_name["ScalerService"]


async def serve(settings: ScalerSettings) -> None:
    """Serve until told to stop."""
    clock = SystemClock()
    pools = local_pools(
        load_section(settings.config_file, "scaling", ScalingSection).pools, settings
    )
    async with contextlib.AsyncExitStack() as owned:
        telemetry = await owned.enter_async_context(start_telemetry("scaler", settings))
        client = open_redis(settings.redis_url) if settings.redis_url else None
        if client is not None:
            owned.push_async_callback(client.aclose)

        def peer(address: str, service: ServiceDescriptor) -> Peer | None:
            if not address:
                return None
            made = UnaryPeer(
                open_channel(address), service, token=settings.internal_token, clock=clock
            )
            owned.push_async_callback(made.close)
            return made

        registry = peer(settings.router_address, REGISTRY)
        batcher, told = (
            peer(settings.batcher_address, BATCHER),
            peer(settings.telemetry_address, TELEMETRY),
        )
        demand = Demand(batcher, told, clock, registry)
        drainer = Drainer(registry, clock) if registry is not None else None
        drain, begin = (drainer.drain, drainer.begin) if drainer is not None else (None, None)
        store = Store(client, secrets.token_hex(8))
        actuators = {
            pool.name: actuator(pool, clock, drain, store.zones(pool.name)) for pool in pools
        }
        engine = Engine(pools, actuators, store, clock, demand, telemetry, begin)
        owned.push_async_callback(engine.close)
        await engine.recall()
        loop = asyncio.create_task(engine.run(settings.tick_s, settings.leader_ms), name="scaling")
        owned.callback(loop.cancel)
        door = Door(SCALER, ScalerServicer(engine, clock), internal(settings.internal_token))
        server = Server("scaler", settings, [door], tracer=telemetry, clock=clock)
        if settings.keda_listen:
            other = keda_server(settings, engine, clock)
            await other.start()
            owned.push_async_callback(other.stop, None)
        if settings.notice_listen:
            notices = NoticeDoor(
                lambda notice: engine.replace(notice.instance, notice.at_s),
                settings.notice_secret,
                clock,
            )
            await notices.start(settings.notice_listen)
            owned.push_async_callback(notices.close)
        if settings.metadata_url:
            asked = list(CLOUDS) if settings.metadata_cloud == "any" else [settings.metadata_cloud]
            services = [CLOUDS[name](settings.metadata_url) for name in asked]
            watcher = asyncio.create_task(
                watch(services, lambda _: engine.leave(), clock), name="metadata"
            )
            owned.callback(watcher.cancel)
        await server.start()
        await server.wait()


def keda_server(settings: ScalerSettings, engine: Engine, clock: Clock) -> Server:
    """KEDA's door, on an address of its own, for it brings no credentials."""
    scaler = ExternalScaler(engine, clock)
    name = keda.DESCRIPTOR.services_by_name["ExternalScaler"].full_name
    own = settings.model_copy(update={"listen": settings.keda_listen})
    add = keda_grpc.add_ExternalScalerServicer_to_server
    return Server(
        "scaler-keda", own, [], foreign_names=[name], foreign=[lambda server: add(scaler, server)]
    )


def local_pools(pools: Sequence[PoolConfig], settings: ScalerSettings) -> list[PoolConfig]:
    """On a developer's machine: the pool that nobody acts for runs as processes, no more than there
    are cores beside what runs anyway.
    """
    if not settings.local_command:
        return list(pools)
    env = {
        "PENSTOCK_LISTEN": "127.0.0.1:{port}",
        "PENSTOCK_INSTANCE_ID": "{instance}",
        "PENSTOCK_COMPUTE_THREADS": "1",
    }
    command = tuple(shlex.split(settings.local_command))
    acting = ProcessActuator(kind="process", command=command, env=env, beside=settings.local_beside)
    most = settings.local_beside + (os.cpu_count() or 1)
    return [
        pool.model_copy(update={"actuator": acting, "most": max(pool.least, min(pool.most, most))})
        if pool.name == settings.local_pool
        and isinstance(pool.actuator, NoActuator)
        and not pool.dry_run
        else pool
        for pool in pools
    ]


def actuator(
    pool: PoolConfig, clock: Clock, drain: Drain | None, memory: Memory | None = None
) -> Actuator:
    """Who acts for a pool."""
    chosen = pool.actuator
    if isinstance(chosen, ProcessActuator):
        return LocalProcesses(pool.name, chosen, clock, drain=drain)
    if isinstance(chosen, KubernetesActuator):
        return KubernetesScale(chosen)
    if isinstance(chosen, AwsActuator):
        return AutoScalingGroups(chosen, clock, drain)
    if isinstance(chosen, AwsSpotActuator):
        knobs = SpotKnobs(extra=chosen.extra, base=chosen.base, patience_s=chosen.patience_s)
        solver = PlanKnobs(base=chosen.base) if chosen.solver else None
        return SpotFleet(
            Ec2Machines(pool.name, chosen, clock),
            places(chosen),
            clock,
            knobs,
            solver,
            drain,
            memory,
        )
    return DryRun(max(1, pool.least))


def main() -> None:
    if sys.argv[1:2] == ["replay"]:
        sys.exit(replay.main(sys.argv[2:]))
    run("scaler", ScalerSettings, serve, "How many instances should there be, and of which kind?")


if __name__ == "__main__":
    main()
