"""A real router with real instances behind it, in process: what is asked, who serves and how is the
test's.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import redis.asyncio
import yaml
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.api.router.v1 import router_pb2_grpc
from penstock.hosting.life import serving as hosted
from penstock.prices.prices import ModelPrice
from penstock.router.build import Stages, assemble
from penstock.router.calls.attempts import Attempts
from penstock.router.instances.backends import INFERENCE
from penstock.router.instances.registry import Registry
from penstock.router.keys import digest
from penstock.router.routing.model_choice import Models
from penstock.router.settings import RouterSettings, RoutesSection
from penstock.router.stages import (
    AdmissionStage,
    NoRecall,
    NoShape,
    OpenAdmission,
    RecallStage,
    ShapeStage,
)
from penstock.rpc.auth import internal
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.peers.stream import open_channel
from penstock.testkit.outside import outside_for_tests
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
            serving([Endpoint(INFERENCE, servicer, internal(TOKEN))])
        )
        ready = inference_pb2.Model(name=model, state=inference_pb2.MODEL_STATE_READY, tasks=TASKS)
        await self.registry.register(
            pb.Instance(id=name, address=server.address, models=[ready], concurrency=concurrency)
        )
        self.registry.members[name].successes = 3


StartRouter = Callable[..., AbstractAsyncContextManager[Routed]]


KEYS = [
    {"id": "k1", "sha256": digest(KEY), "organisation": "acme", "priority_ceiling": "high"},
]
LEASE_MS = 3_600_000
"""Instances are registered by tests and send no heartbeats."""


@contextlib.asynccontextmanager
async def _start(
    settings: RouterSettings,
    *,
    admission: AdmissionStage | None = None,
    routes: RoutesSection | None = None,
    prices: Mapping[str, ModelPrice] | None = None,
    store: redis.asyncio.Redis | None = None,
    shape: ShapeStage | None = None,
    recall: RecallStage | None = None,
) -> AsyncIterator[Routed]:
    told: dict[str, object] = {"keys": {"api": KEYS}}
    if routes is not None:
        told["routes"] = routes.model_dump(mode="json")
    if prices:
        rows = [price.model_dump(mode="json", exclude_none=True) for price in prices.values()]
        told["prices"] = {"models": rows}
    async with contextlib.AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        file = Path(folder) / "penstock.yaml"
        file.write_text(yaml.safe_dump(told))
        made = settings.model_copy(
            update={
                "config_file": file,
                "listen": "127.0.0.1:0",
                "internal_token": TOKEN,
                "lease_ms": LEASE_MS,
                "grace_s": 0.0,
                "redis_url": "the test's own" if store is not None else "",
            }
        )
        outside = outside_for_tests(made)
        if store is not None:
            outside = replace(outside, open_store=lambda _: store)
        stages = Stages(admission or OpenAdmission(), recall or NoRecall(), shape or NoShape())
        router = assemble(made, outside, stages)
        address = await stack.enter_async_context(hosted(router.service, made))
        channel = await stack.enter_async_context(open_channel(address))
        stub = router_pb2_grpc.RouterServiceStub(channel)
        yield Routed(stub, router.registry, router.attempts, router.models, address, stack)
        await router.pipeline.drained()
    assert all(item.own == 0 for item in router.registry.members.values())


@pytest.fixture
def start_router() -> StartRouter:
    """Starts a router with these settings for as long as the context lasts; afterwards no count may
    be left.
    """
    return _start
