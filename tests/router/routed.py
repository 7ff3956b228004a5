"""A real router with real instances behind it, in this process, over real connections.

Each test says what is asked, who serves and how; `start` does the rest.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import redis.asyncio
import yaml
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.api.router.v1 import router_pb2_grpc
from penstock.hosting.life import serving as hosted
from penstock.prices.prices import ModelPrice
from penstock.router.build import Stages, assemble
from penstock.router.calls.selection import Selection
from penstock.router.instances.backends import INFERENCE
from penstock.router.instances.registry import Registry
from penstock.router.keys import digest
from penstock.router.routing.model_choice import Models
from penstock.router.settings import RouterSettings, RoutesSection
from penstock.router.stages import AdmissionStage, LookUpStage, NoShape, ShapeStage
from penstock.rpc.auth import internal
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.peers.stream import open_channel
from penstock.testkit.outside import outside_for_tests
from penstock.testkit.server import TOKEN, serving

KEY = "psk-test-key"
"""The API key of the organisation `acme`; its priority is at most high."""
OTHER_KEY = "psk-other-key"
"""The API key of another organisation."""
SCOPED_KEY = "psk-scoped-key"
"""A key of `acme` for models whose names begin with `small-`."""
METADATA = (("authorization", f"Bearer {KEY}"),)
OTHER_METADATA = (("authorization", f"Bearer {OTHER_KEY}"),)
SCOPED_METADATA = (("authorization", f"Bearer {SCOPED_KEY}"),)
KEYS = [
    {"id": "k1", "sha256": digest(KEY), "organisation": "acme", "priority_ceiling": "high"},
    {"id": "k2", "sha256": digest(OTHER_KEY), "organisation": "other"},
    {"id": "k3", "sha256": digest(SCOPED_KEY), "organisation": "acme", "models": ["small-*"]},
]
TASKS = (
    inference_pb2.TASK_KIND_EMBED,
    inference_pb2.TASK_KIND_CLASSIFY,
    inference_pb2.TASK_KIND_GENERATE,
    inference_pb2.TASK_KIND_RERANK,
)
LEASE_MS = 3_600_000
"""Instances are registered by tests and send no heartbeats."""
JOINED_SUCCESSES = 3
"""An instance with so many successes is no newcomer any more."""


@dataclass
class Routed:
    """A router that serves, and its public parts."""

    stub: router_pb2_grpc.RouterServiceStub
    registry: Registry
    selection: Selection
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
        self.registry.members[name].successes = JOINED_SUCCESSES

    @contextlib.contextmanager
    def occupied(self, name: str, requests: int) -> Iterator[None]:
        """Count so many requests more at an instance than it was given."""
        member = self.registry.members[name]
        member.own += requests
        try:
            yield
        finally:
            member.own -= requests


StartRouter = Callable[..., AbstractAsyncContextManager[Routed]]


@contextlib.asynccontextmanager
async def start(
    settings: RouterSettings,
    *,
    admission: AdmissionStage | None = None,
    look_up: LookUpStage | None = None,
    shape: ShapeStage | None = None,
    routes: RoutesSection | None = None,
    prices: Mapping[str, ModelPrice] | None = None,
    store: redis.asyncio.Redis | None = None,
) -> AsyncIterator[Routed]:
    """A router with these settings for as long as the context lasts; afterwards every count of
    requests in flight must be zero.
    """
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        config_file = folder / "penstock.yaml"
        config_file.write_text(yaml.safe_dump(_sections(routes, prices)))
        own = settings.model_copy(
            update={
                "config_file": config_file,
                "listen": "127.0.0.1:0",
                "internal_token": TOKEN,
                "lease_ms": LEASE_MS,
                "grace_s": 0.0,
                "ledger_url": "the test's own" if store is not None else "",
            }
        )
        outside = outside_for_tests(own)
        if store is not None:
            outside = replace(outside, open_store=lambda _: store)
        router = assemble(own, outside, Stages(admission, look_up, shape or NoShape()))
        address = await stack.enter_async_context(hosted(router.service, own))
        channel = await stack.enter_async_context(open_channel(address))
        stub = router_pb2_grpc.RouterServiceStub(channel)
        yield Routed(stub, router.registry, router.selection, router.models, address, stack)
        await router.pipeline.drained()
    in_flight = {name: member.own for name, member in router.registry.members.items()}
    assert not any(in_flight.values()), in_flight


def _sections(
    routes: RoutesSection | None, prices: Mapping[str, ModelPrice] | None
) -> dict[str, object]:
    """The configuration file of a router with the key above."""
    sections: dict[str, object] = {"keys": {"api": KEYS}}
    if routes is not None:
        sections["routes"] = routes.model_dump(mode="json")
    if prices:
        rows = [price.model_dump(mode="json", exclude_none=True) for price in prices.values()]
        sections["prices"] = {"models": rows}
    return sections
