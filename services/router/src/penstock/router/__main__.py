"""The hall: configuration, registry, pipeline, doors. `python -m penstock.router`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from random import Random

from google.protobuf.descriptor import ServiceDescriptor
from penstock.api.cache.v1 import cache_pb2
from penstock.api.limiter.v1 import limiter_pb2
from penstock.api.router.v1 import router_pb2
from penstock.otel.start import start_telemetry
from penstock.prices.prices import Prices, PricesSection
from penstock.router.admission.limiter_admission import LimiterAdmission
from penstock.router.api.keys import KeyRing
from penstock.router.api.registry_service import RegistryServicer
from penstock.router.api.router_service import RouterServicer
from penstock.router.caching.cache_lookup import CacheRecall
from penstock.router.calls.attempts import Attempts
from penstock.router.calls.pipeline import Pipeline
from penstock.router.instances.backends import Backends
from penstock.router.instances.registry import Registry
from penstock.router.jobs.jobs import Jobs
from penstock.router.prompts.rules import PromptsSection
from penstock.router.prompts.shaping import PromptShape
from penstock.router.routing.model_choice import Models
from penstock.router.runs.run_stream import RunStream
from penstock.router.settings import KeysSection, RouterSettings, RoutesSection
from penstock.router.stages import NoRecall, OpenAdmission
from penstock.rpc.auth import internal
from penstock.rpc.endpoint import Door
from penstock.rpc.errors import Fault
from penstock.rpc.peers.stream import Peer, connect
from penstock.rpc.polling import poll_after_loop
from penstock.rpc.server import Server, ServerLimits
from penstock.service.clock import SystemClock
from penstock.service.program import run
from penstock.service.settings import load_section, watch_sighup
from penstock.service.store import open_redis

ROUTER = router_pb2.DESCRIPTOR.services_by_name["RouterService"]
CACHE = cache_pb2.DESCRIPTOR.services_by_name["CacheService"]
LIMITER = limiter_pb2.DESCRIPTOR.services_by_name["LimiterService"]
REGISTRY = router_pb2.DESCRIPTOR.services_by_name["RegistryService"]
log = logging.getLogger(__name__)


async def serve(settings: RouterSettings) -> None:
    """Serve until told to stop."""
    clock = SystemClock()
    keys = KeyRing(load_section(settings.config_file, "keys", KeysSection).api)
    models = Models(
        load_section(settings.config_file, "routes", RoutesSection), settings.default_model
    )
    models.prices = Prices.of(load_section(settings.config_file, "prices", PricesSection))

    def reload() -> None:
        fresh = (
            load_section(settings.config_file, "keys", KeysSection),
            load_section(settings.config_file, "routes", RoutesSection),
            load_section(settings.config_file, "prices", PricesSection),
            load_section(settings.config_file, "prompts", PromptsSection),
        )
        shape.replace(
            fresh[3]
        )  # first: it may refuse a tokenizer's file, and then all of the old file stays
        keys.replace(fresh[0].api)
        models.replace(fresh[1])
        models.prices = pipeline.prices = Prices.of(fresh[2])

    store = open_redis(settings.redis_url) if settings.redis_url else None
    async with start_telemetry("router", settings, edge=True) as telemetry:

        def dial(address: str, service: ServiceDescriptor) -> Peer:
            return connect(
                address, service, token=settings.internal_token, clock=clock, tracer=telemetry
            )

        registry = Registry(settings, store, clock)
        backends = Backends(dial, settings.batcher_address)
        attempts = Attempts(settings, registry, backends, clock, telemetry, Random())
        admission = _admission(settings, models, clock, dial)
        recall = _recall(settings, models, clock, dial)
        shape = PromptShape(
            load_section(settings.config_file, "prompts", PromptsSection), lambda: models.prices
        )
        stages = admission or OpenAdmission(), recall or NoRecall(), shape
        pipeline = Pipeline(
            attempts, stages, clock, telemetry, lambda: (*registry.notes(), *telemetry.notes())
        )
        pipeline.prices = models.prices
        watch_sighup(reload)
        servicer = RouterServicer(settings, keys, registry, pipeline, clock, models)
        run_stream: RunStream | None = None
        if store is not None:
            servicer.jobs = Jobs(settings, store, servicer.serve_job, clock)
            run_stream = RunStream(store, servicer.runs, clock)
        doors = [
            Door(ROUTER, servicer, keys.authenticate, public=True),
            Door(
                REGISTRY,
                RegistryServicer(settings, registry, clock),
                internal(settings.internal_token),
            ),
        ]
        limits = ServerLimits(default_deadline_s=settings.default_deadline_ms / 1e3)
        server = Server("router", settings, doors, tracer=telemetry, clock=clock, limits=limits)
        await registry.read_shared()
        await server.start()
        poller = asyncio.create_task(poll_after_loop(settings.poll_nice, clock), name="poller")
        keeper = asyncio.create_task(
            _keep(settings, registry, backends, attempts, clock), name="registry keeper"
        )
        lease_keeper = (
            asyncio.create_task(admission.keep(), name="lease keeper") if admission else None
        )
        if servicer.jobs is not None and run_stream is not None:
            run_stream.start()
            servicer.jobs.start()
        await server.wait()
        if servicer.jobs is not None:
            await servicer.jobs.close()
        poller.cancel()
        keeper.cancel()
        await asyncio.wait([poller, keeper])
        await pipeline.drained()
        if admission is not None and lease_keeper is not None:
            lease_keeper.cancel()
            await admission.close()
        if recall is not None:
            await recall.close()
        await backends.close()
        if store is not None and run_stream is not None:
            await run_stream.close()
            await store.aclose()


def _recall(
    settings: RouterSettings,
    models: Models,
    clock: SystemClock,
    dial: Callable[[str, ServiceDescriptor], Peer],
) -> CacheRecall | None:
    if not settings.cache_address:
        return None
    recall = CacheRecall(dial(settings.cache_address, CACHE), lambda: models.prices, clock)
    recall.deposits.start()
    return recall


def _admission(
    settings: RouterSettings,
    models: Models,
    clock: SystemClock,
    dial: Callable[[str, ServiceDescriptor], Peer],
) -> LimiterAdmission | None:
    if not settings.limiter_address:
        return None
    peer = dial(settings.limiter_address, LIMITER)
    return LimiterAdmission(peer, lambda: models.prices, clock, settings.limiter_loss)


async def _keep(
    settings: RouterSettings,
    registry: Registry,
    backends: Backends,
    attempts: Attempts,
    clock: SystemClock,
) -> None:
    """Read what other routers know, and let leases run out."""
    while True:
        await clock.sleep(settings.heartbeat_interval_ms / 1e3)
        await registry.read_shared()
        for instance_id in registry.sweep():
            attempts.forget(instance_id)
            with contextlib.suppress(Fault):
                await backends.detach(instance_id)


def main() -> None:
    run("router", RouterSettings, serve, "Which instance should serve this, and what if it fails?")


if __name__ == "__main__":
    main()
