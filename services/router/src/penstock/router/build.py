"""The assembly of the router."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import redis.asyncio
from penstock.api.cache.v1 import cache_pb2
from penstock.api.limiter.v1 import limiter_pb2
from penstock.api.router.v1 import router_pb2
from penstock.hosting.assembly import Assembly
from penstock.hosting.grpc_server import GrpcServer, ServerLimits
from penstock.hosting.outside import Outside
from penstock.hosting.polling import poll_after_loop
from penstock.hosting.service import Apply, Port, Service
from penstock.kserve.grpc_service import NAME as KSERVE
from penstock.kserve.grpc_service import add_to
from penstock.kserve.inference import Inference
from penstock.prices.price_file import read_prices
from penstock.prices.prices import Prices
from penstock.router.admission.limiter_admission import LimiterAdmission
from penstock.router.admission.limiter_calls import LimiterCalls
from penstock.router.admission.run_admission import RunAdmission
from penstock.router.admission.unlimited import CeilingAdmission
from penstock.router.api.fleet_models import FleetModels
from penstock.router.api.registry_service import RegistryServicer
from penstock.router.api.router_service import RouterServicer
from penstock.router.api.translating_callers import marking_translators
from penstock.router.caching.cache_lookup import CacheLookUp
from penstock.router.calls.attempts import Attempts
from penstock.router.calls.handler import CallHandler
from penstock.router.calls.holds import Holds
from penstock.router.calls.pipeline import Pipeline
from penstock.router.calls.selection import Selection
from penstock.router.credentials import Credentials, verifier_of
from penstock.router.instances.backends import Backends
from penstock.router.instances.registry import Registry
from penstock.router.jobs.jobs import Jobs
from penstock.router.keys import KeyRing
from penstock.router.prompts.direct_calls import DirectCalls
from penstock.router.prompts.prefixes import Prefixes
from penstock.router.prompts.rules import PromptsSection
from penstock.router.prompts.shaping import PromptShape
from penstock.router.registry_upkeep import keep_registry
from penstock.router.requests.token_counts import counters_of
from penstock.router.routing.model_choice import Models
from penstock.router.runs.cancels import RunCancels
from penstock.router.runs.facts import Outbox
from penstock.router.runs.run_stream import RunStream
from penstock.router.runs.runs import Runs
from penstock.router.runs.started_runs import StartedRuns
from penstock.router.settings import KeysSection, RouterSettings, RoutesSection
from penstock.router.stages import AdmissionStage, LookUpStage, NoLookUp, ShapeStage
from penstock.rpc.auth import services_only
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.open_calls import OpenCalls
from penstock.rpc.peers.stream import Peer
from penstock.service.background import Background
from penstock.service.current import Current
from penstock.service.settings import load_section
from penstock.service.store import check_store

NAME = "router"
UNCOPIED = frozenset({"Embed", "Rerank", "Generate", "GenerateStream"})
"""Tasks and options are taken over into messages of the router's own, and each response is made
anew.
"""
ROUTER = router_pb2.DESCRIPTOR.services_by_name["RouterService"]
CACHE = cache_pb2.DESCRIPTOR.services_by_name["CacheService"]
LIMITER = limiter_pb2.DESCRIPTOR.services_by_name["LimiterService"]
REGISTRY = router_pb2.DESCRIPTOR.services_by_name["RegistryService"]


@dataclass(frozen=True)
class Stages:
    """Stages of the path that others plug in; None is what the settings say."""

    admission: AdmissionStage | None = None
    look_up: LookUpStage | None = None
    shape: ShapeStage | None = None


@dataclass(frozen=True)
class Router:
    """The assembled router and the parts that its tests look at."""

    service: Service
    registry: Registry
    selection: Selection
    models: Models
    pipeline: Pipeline


def build(settings: RouterSettings, outside: Outside) -> Service:
    """Make the router; raises BadConfig."""
    return assemble(settings, outside).service


def assemble(settings: RouterSettings, outside: Outside, stages: Stages = Stages()) -> Router:
    """Make the router, with stages of the caller's own where it gives some."""
    clock, telemetry = outside.clock, outside.telemetry
    sections = _Sections(settings)
    keys = KeyRing(sections.keys.api, verifier_of(settings, sections.keys), clock)
    prices = Current(Prices.from_section(sections.prices))
    models = Models(sections.routes, settings.default_model, prices, sections.counters)
    store = outside.open_store(settings.ledger_url) if settings.ledger_url else None
    registry = Registry(settings, store, clock)
    backends = Backends(outside.dial, settings.batcher_address, clock)
    selection = Selection(settings, registry, clock, telemetry, outside.rng)
    admission = _admission(settings, outside, prices, selection.max_output_tokens)
    after = Background()
    admitting = (
        stages.admission or admission or CeilingAdmission(prices, selection.max_output_tokens)
    )
    run_admission = _run_admission(settings, outside, prices, admitting)
    admitting = run_admission or admitting
    holds = Holds(admitting, prices, models.token_counts, after)
    attempts = Attempts(settings, registry, backends, selection, holds, clock, telemetry)
    look_up = _look_up(settings, outside, prices)
    prefixes = Prefixes(prices, clock)
    shape = PromptShape(sections.prompts, prices, prefixes, DirectCalls(prices, clock))
    pipeline = Pipeline(
        attempts,
        holds,
        (
            admitting,
            stages.look_up or look_up or NoLookUp(),
            stages.shape or shape,
        ),
        clock,
        telemetry,
        prices,
        after,
        (registry, telemetry),
    )
    outbox = Outbox() if store is not None else None
    runs = Runs(clock, outbox)
    calls = CallHandler(keys, models, registry, pipeline, runs)
    shared = None
    if store is not None and outbox is not None:
        served = Jobs(settings, store, calls.serve_job, clock)
        shared = _Shared(store, served, RunStream(store, runs, outbox, clock))
    jobs = shared.jobs if shared is not None else None
    started = StartedRuns(_limiter(settings, outside))
    cancel_jobs = jobs.cancel_run if jobs is not None else None
    cancels = RunCancels(started, runs, cancel_jobs, clock)
    servicer = RouterServicer(
        settings,
        calls,
        registry,
        selection,
        pipeline,
        clock,
        models,
        started,
        cancels,
        prefixes,
        jobs,
    )
    open_calls = OpenCalls(keys.authenticate)
    endpoints = [
        Endpoint(
            ROUTER,
            servicer,
            marking_translators(keys.authenticate, settings.tokens, ROUTER),
            public=True,
            uncopied=UNCOPIED,
            open_calls=open_calls,
        ),
        Endpoint(
            REGISTRY,
            RegistryServicer(settings, registry, clock, store),
            services_only(REGISTRY, settings.tokens),
        ),
    ]
    limits = ServerLimits(default_deadline_s=settings.default_deadline_ms / 1e3)
    kserve = Inference(
        FleetModels(calls, keys, registry, telemetry),
        clock,
        limits.default_deadline_s,
        open_calls,
    )
    port = GrpcServer(
        NAME,
        settings,
        endpoints[:1] if settings.registry_listen else endpoints,
        foreign=[lambda server: add_to(server, kserve)],
        foreign_names=[KSERVE],
        tracer=telemetry,
        clock=clock,
        limits=limits,
    )
    credentials = Credentials(settings, store, keys, sections.keys, open_calls, clock)
    ports = [
        *credentials.ports(),
        *_http_ports(settings, kserve),
        *_registry_port(settings, endpoints[1]),
        port,
    ]
    background = Background()

    async def open_() -> None:
        if store is not None:
            await check_store(store, "PENSTOCK_LEDGER_URL")
        await registry.read_shared()
        await credentials.read()
        if look_up is not None:
            look_up.start()

    async def ready(_: str) -> None:
        background.start(poll_after_loop(settings.poll_nice, clock), "poller")
        background.start(credentials.follow(), "credentials")
        interval_s = settings.heartbeat_interval_ms / 1e3
        keeping = keep_registry(registry, backends, selection, clock, interval_s)
        background.start(keeping, "registry")
        if admission is not None:
            background.start(admission.keep(), "lease keeper")
            background.start(admission.settle_left_behind(), "overdrafts left behind")
        if shared is not None:
            shared.start()

    async def close() -> None:
        if shared is not None:
            await shared.jobs.close()
        await background.close()
        await pipeline.drained()
        for stage in (run_admission, admission, cancels, started, look_up, backends, shared):
            if stage is not None:
                await stage.close()

    service = Service(
        NAME,
        ports,
        endpoints,
        open=open_,
        ready=ready,
        close=close,
        prepare_reload=lambda: _prepare_reload(settings, credentials, models, prices, shape),
    )
    return Router(service, registry, selection, models, pipeline)


def _registry_port(settings: RouterSettings, registry: Endpoint) -> list[Port]:
    """The port of instances and scalers, apart from that of clients where it is set."""
    if not settings.registry_listen:
        return []
    own = settings.model_copy(update={"listen": settings.registry_listen})
    return [GrpcServer("router-registry", own, [registry])]


def _http_ports(settings: RouterSettings, kserve: Inference) -> list[Port]:
    """The port of KServe over HTTP, where there is to be one; only then is its library loaded."""
    if not settings.kserve_http_listen:
        return []
    from penstock.hosting.http_port import HttpPort
    from penstock.kserve.http_service import app_of

    return [
        HttpPort(
            settings.kserve_http_listen,
            app_of(kserve),
            "PENSTOCK_KSERVE_HTTP_LISTEN",
            shared=bool(settings.cell),
            tls=settings.tls,
        )
    ]


@dataclass(frozen=True)
class _Shared:
    """What routers share through the store."""

    store: redis.asyncio.Redis
    jobs: Jobs
    run_stream: RunStream

    def start(self) -> None:
        self.run_stream.start()
        self.jobs.start()

    async def close(self) -> None:
        """Close what is left when jobs have been closed."""
        await self.run_stream.close()
        await self.store.aclose()


class _Sections:
    """What the file says for the router; raises BadConfig."""

    def __init__(self, settings: RouterSettings) -> None:
        file = settings.config_file
        self.keys = load_section(file, "keys", KeysSection)
        self.routes = load_section(file, "routes", RoutesSection)
        self.counters = counters_of(self.routes.models)
        self.prices = read_prices(file, settings.home)
        self.prompts = load_section(file, "prompts", PromptsSection)


def _prepare_reload(
    settings: RouterSettings,
    credentials: Credentials,
    models: Models,
    prices: Current[Prices],
    shape: PromptShape,
) -> Apply:
    """Read the file; returns what puts it in force. Raises BadConfig."""
    fresh = _Sections(settings)
    shape_prompts = shape.prepare(fresh.prompts)
    replace_credentials = credentials.prepare(fresh.keys)
    fresh_prices = Prices.from_section(fresh.prices)

    def apply() -> None:
        shape_prompts()
        replace_credentials()
        models.replace(fresh.routes, fresh.counters)
        prices.value = fresh_prices

    return apply


def _look_up(
    settings: RouterSettings, outside: Outside, prices: Current[Prices]
) -> CacheLookUp | None:
    if not settings.cache_address:
        return None
    peer = outside.dial(settings.cache_address, CACHE)
    return CacheLookUp(peer, prices, outside.clock, settings.coalesce_max_temperature)


def _admission(
    settings: RouterSettings,
    outside: Outside,
    prices: Current[Prices],
    max_output_tokens: Callable[[str], int],
) -> LimiterAdmission | None:
    if not settings.limiter_address:
        return None
    peer = outside.dial(settings.limiter_address, LIMITER)
    return LimiterAdmission(
        peer,
        prices,
        outside.clock,
        settings.limiter_loss,
        max_output_tokens,
        settings.lease_overdraft_share,
        settings.home / "overdrafts",
    )


def _limiter(settings: RouterSettings, outside: Outside) -> Peer | None:
    return outside.dial(settings.limiter_address, LIMITER) if settings.limiter_address else None


def _run_admission(
    settings: RouterSettings, outside: Outside, prices: Current[Prices], inner: AdmissionStage
) -> RunAdmission | None:
    """Holds calls of started runs at their runs, which the limiter keeps."""
    peer = _limiter(settings, outside)
    if peer is None:
        return None
    return RunAdmission(inner, LimiterCalls(peer, outside.clock), prices, outside.clock)


ASSEMBLY = Assembly(
    NAME,
    RouterSettings,
    build,
    "Which instance should serve this, and what if it fails?",
    edge=True,
)
