"""A real router with real instances behind it, in process: what is asked, who serves and how is the
test's.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest
import redis.asyncio
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.api.router.v1 import router_pb2_grpc
from penstock.otel.telemetry import NO_TELEMETRY
from penstock.prices.prices import Prices
from penstock.router.__main__ import REGISTRY, ROUTER
from penstock.router.api.keys import KeyRing, digest
from penstock.router.api.registry_service import RegistryServicer
from penstock.router.api.router_service import RouterServicer
from penstock.router.calls.attempts import Attempts
from penstock.router.calls.pipeline import Pipeline
from penstock.router.instances.backends import INFERENCE, Backends
from penstock.router.instances.registry import Registry
from penstock.router.jobs.jobs import Jobs
from penstock.router.routing.model_choice import Models
from penstock.router.settings import KeySection, RouterSettings, RoutesSection
from penstock.router.stages import (
    AdmissionStage,
    NoRecall,
    NoShape,
    OpenAdmission,
    RecallStage,
    ShapeStage,
)
from penstock.rpc.auth import internal
from penstock.rpc.endpoint import Door
from penstock.rpc.peers.stream import connect, open_channel
from penstock.service.clock import SystemClock
from penstock.testkit.server import TOKEN, serving

KEY = "psk-test-key"
METADATA = (("authorization", f"Bearer {KEY}"),)
TASKS = ("embed", "classify", "generate")


@dataclass
class Routed:
    """A router that serves, and what a test may look into."""

    stub: router_pb2_grpc.RouterServiceStub
    registry: Registry
    attempts: Attempts
    models: Models
    address: str
    stack: contextlib.AsyncExitStack
    metadata: tuple[tuple[str, str], ...] = METADATA

    async def join(self, name: str, servicer: object, model: str, concurrency: int = 2) -> None:
        """Serve an instance and register it as one that is proven."""
        server = await self.stack.enter_async_context(
            serving([Door(INFERENCE, servicer, internal(TOKEN))])
        )
        ready = inference_pb2.Model(name=model, state=inference_pb2.MODEL_STATE_READY, tasks=TASKS)
        await self.registry.register(
            pb.Instance(id=name, address=server.address, models=[ready], concurrency=concurrency)
        )
        self.registry.members[name].successes = 3


StartRouter = Callable[..., AbstractAsyncContextManager[Routed]]


@contextlib.asynccontextmanager
async def _start(
    settings: RouterSettings,
    *,
    admission: AdmissionStage | None = None,
    routes: RoutesSection | None = None,
    prices: Mapping[str, Any] | None = None,
    store: redis.asyncio.Redis | None = None,
    shape: ShapeStage | None = None,
    recall: RecallStage | None = None,
) -> AsyncIterator[Routed]:
    clock, table = SystemClock(), Prices(prices or {})
    keys = KeyRing(
        [KeySection(id="k1", sha256=digest(KEY), organisation="acme", priority_ceiling="high")]
    )
    registry, models = (
        Registry(settings, None, clock),
        Models(routes or RoutesSection(), settings.default_model, table),
    )
    backends = Backends(
        lambda address, service: connect(address, service, token=TOKEN), settings.batcher_address
    )
    attempts = Attempts(settings, registry, backends, clock, NO_TELEMETRY, Random(1))
    stages = admission or OpenAdmission(), recall or NoRecall(), shape or NoShape()
    pipeline = Pipeline(attempts, stages, clock, NO_TELEMETRY, registry.notes)
    pipeline.prices = table
    servicer = RouterServicer(settings, keys, registry, pipeline, clock, models)
    doors = [
        Door(ROUTER, servicer, keys.authenticate, public=True),
        Door(REGISTRY, RegistryServicer(settings, registry, clock), internal(TOKEN)),
    ]
    async with contextlib.AsyncExitStack() as stack:
        if store is not None:
            servicer.jobs = Jobs(settings, store, servicer.serve_job, clock)
            servicer.jobs.start()
            stack.push_async_callback(servicer.jobs.close)
        server = await stack.enter_async_context(serving(doors))
        channel = await stack.enter_async_context(open_channel(server.address))
        stub = router_pb2_grpc.RouterServiceStub(channel)
        yield Routed(stub, registry, attempts, models, server.address, stack)
        await pipeline.drained()
        await backends.close()
    assert all(item.own == 0 for item in registry.members.values())


@pytest.fixture
def start_router() -> StartRouter:
    """Starts a router with these settings for as long as the context lasts; afterwards no count may
    be left.
    """
    return _start
