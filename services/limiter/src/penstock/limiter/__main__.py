"""The hall: configuration, store, doors. `python -m penstock.limiter`."""

from __future__ import annotations

import contextlib

from penstock.api.envoy import ratelimit_pb2 as rls
from penstock.api.envoy import ratelimit_pb2_grpc as rls_grpc
from penstock.api.limiter.v1 import limiter_pb2
from penstock.limiter.api.admin_service import AdminServicer, operator
from penstock.limiter.api.envoy_service import EnvoyServicer
from penstock.limiter.api.limiter_service import LimiterServicer
from penstock.limiter.rules import LimitsSection
from penstock.limiter.settings import LimiterSettings
from penstock.limiter.store import Store
from penstock.otel.start import start_telemetry
from penstock.prices.prices import PricesSection
from penstock.rpc.auth import internal
from penstock.rpc.endpoint import Door
from penstock.rpc.server import Server
from penstock.service.clock import SystemClock
from penstock.service.program import CannotStart, run
from penstock.service.settings import load_section, watch_sighup
from penstock.service.store import open_redis

SERVICES = limiter_pb2.DESCRIPTOR.services_by_name


async def serve(settings: LimiterSettings) -> None:
    """Serve until told to stop."""
    if not settings.redis_url:
        raise CannotStart(
            "the limiter keeps its books in Redis: set PENSTOCK_REDIS_URL (make up does)"
        )
    clock, file = SystemClock(), settings.config_file
    client = open_redis(settings.redis_url, timeout_s=1.0, retries=0)
    store = Store(
        client,
        clock,
        settings.store_timeout_ms / 1e3,
        settings.store_pause_ms / 1e3,
        patience_s=settings.store_patience_ms / 1e3,
    )
    limits, prices = (
        load_section(file, "limits", LimitsSection),
        load_section(file, "prices", PricesSection),
    )
    servicer = LimiterServicer(settings, limits, prices, store, clock)
    watch_sighup(
        lambda: servicer.reload(
            load_section(file, "limits", LimitsSection), load_section(file, "prices", PricesSection)
        )
    )
    async with contextlib.AsyncExitStack() as owned:
        owned.push_async_callback(store.close)
        telemetry = await owned.enter_async_context(start_telemetry("limiter", settings))
        servicer.watch(telemetry)
        door = Door(SERVICES["LimiterService"], servicer, internal(settings.internal_token))
        server = Server("limiter", settings, [door], tracer=telemetry, clock=clock)
        await store.warm()
        for other in _others(settings, servicer, store, clock):
            await other.start()
            owned.push_async_callback(other.stop, None)
        await server.start()
        await server.wait()


def _others(
    settings: LimiterSettings, servicer: LimiterServicer, store: Store, clock: SystemClock
) -> list[Server]:
    """The operators' door and Envoy's, each on an address of its own."""
    servers = []
    if settings.admin_listen:
        admin = AdminServicer(servicer, store, clock)
        door = Door(SERVICES["LimiterAdminService"], admin, operator(settings.operators()))
        servers.append(
            Server(
                "limiter-admin",
                settings.model_copy(update={"listen": settings.admin_listen}),
                [door],
            )
        )
    if settings.envoy_listen:
        name = rls.DESCRIPTOR.services_by_name["RateLimitService"].full_name
        envoy = EnvoyServicer(servicer, store)
        servers.append(
            Server(
                "limiter-envoy",
                settings.model_copy(update={"listen": settings.envoy_listen}),
                [],
                foreign_names=[name],
                foreign=[
                    lambda server: rls_grpc.add_RateLimitServiceServicer_to_server(envoy, server)
                ],
            )
        )
    return servers


def main() -> None:
    run("limiter", LimiterSettings, serve, "May this caller spend this now?")


if __name__ == "__main__":
    main()
