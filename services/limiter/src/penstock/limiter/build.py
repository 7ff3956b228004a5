"""The assembly of the limiter: its own port, and the operators' and Envoy's where they are set."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from penstock.api.envoy import ratelimit_pb2 as rls
from penstock.api.envoy import ratelimit_pb2_grpc as rls_grpc
from penstock.api.limiter.v1 import limiter_pb2
from penstock.hosting.assembly import Assembly
from penstock.hosting.grpc_server import GrpcServer
from penstock.hosting.outside import Outside
from penstock.hosting.service import Port, Service, reloading
from penstock.limiter.api.admin_service import AdminServicer, operator_authenticator
from penstock.limiter.api.envoy_service import EnvoyServicer
from penstock.limiter.api.limiter_service import LimiterServicer
from penstock.limiter.counters import state_kind
from penstock.limiter.rules import LimitsSection
from penstock.limiter.settings import LimiterSettings
from penstock.limiter.store.ledger_store import LedgerStore
from penstock.prices.price_file import read_prices
from penstock.prices.prices import PricesSection
from penstock.rpc.auth import services_only
from penstock.rpc.endpoint import Endpoint
from penstock.service.durability import DURABLE_CLIENT_TIMEOUT_S, StoreFacts
from penstock.service.program import CannotStart
from penstock.service.settings import load_section

NAME = "limiter"
SERVICES = limiter_pb2.DESCRIPTOR.services_by_name
UNCOPIED = frozenset(
    ("Reserve", "Extend", "Commit", "Release", "GrantLease", "RenewLease", "ReturnLease")
)
"""What the ledger needs of these requests is read at once, and each response is made anew."""
log = logging.getLogger(__name__)


def build(settings: LimiterSettings, outside: Outside) -> Service:
    """Make the limiter; raises BadConfig, and CannotStart where no store is set."""
    if not settings.ledger_url:
        raise CannotStart(
            "the limiter keeps its ledger in Redis: set PENSTOCK_LEDGER_URL (`make up` does)"
        )
    client = outside.open_store(settings.ledger_url, timeout_s=DURABLE_CLIENT_TIMEOUT_S, retries=0)
    reported: set[str] = set()

    def report(facts: StoreFacts) -> None:
        for warning in settings.store_warnings(facts):
            if warning not in reported:
                log.warning("the ledger's store: %s", warning)
            reported.add(warning)

    limits, prices = _sections(settings)
    store = LedgerStore(
        client,
        outside.clock,
        settings.store_timings(),
        on_connected=report,
        state_kinds=lambda: {rule.name: state_kind(rule) for rule in limits.rules},
    )
    limiter = LimiterServicer(settings, limits, prices, store, outside.clock, outside.telemetry)
    endpoint = Endpoint(
        SERVICES["LimiterService"],
        limiter,
        services_only(SERVICES["LimiterService"], settings.tokens),
        uncopied=UNCOPIED,
    )
    own = GrpcServer(NAME, settings, [endpoint], tracer=outside.telemetry, clock=outside.clock)
    return Service(
        NAME,
        [*_other_ports(settings, limiter, store), own],
        [endpoint],
        open=store.connect,
        close=store.close,
        prepare_reload=reloading(
            lambda: _sections(settings), lambda sections: limiter.reload(*sections)
        ),
    )


def _sections(settings: LimiterSettings) -> tuple[LimitsSection, PricesSection]:
    file = settings.config_file
    return load_section(file, "limits", LimitsSection), read_prices(file, settings.home)


def _other_ports(
    settings: LimiterSettings, limiter: LimiterServicer, store: LedgerStore
) -> Iterator[Port]:
    """The operators' port and Envoy's, each on an address of its own."""
    if settings.admin_listen:
        admin = AdminServicer(limiter, store)
        authenticate = operator_authenticator(settings.operators_by_secret())
        endpoint = Endpoint(SERVICES["LimiterAdminService"], admin, authenticate)
        own = settings.model_copy(update={"listen": settings.admin_listen})
        yield GrpcServer("limiter-admin", own, [endpoint], demands_certificate=False)
    if settings.envoy_listen:
        envoy = EnvoyServicer(limiter, store)
        yield GrpcServer(
            "limiter-envoy",
            settings.model_copy(update={"listen": settings.envoy_listen}),
            [],
            foreign=[lambda server: rls_grpc.add_RateLimitServiceServicer_to_server(envoy, server)],
            foreign_names=[rls.DESCRIPTOR.services_by_name["RateLimitService"].full_name],
        )


ASSEMBLY = Assembly(NAME, LimiterSettings, build, "May this caller spend this now?")
