"""A router whose started runs a real limiter keeps, behind a connection that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from penstock.api.common.v1 import run_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.limiter.v1 import limiter_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.api.router.v1 import runs_pb2
from penstock.limiter.api.limiter_service import LimiterServicer
from penstock.limiter.rules import LimitsSection
from penstock.limiter.settings import LimiterSettings
from penstock.limiter.store.connection import StoreTimings
from penstock.limiter.store.ledger_store import LedgerStore
from penstock.prices.prices import ModelPrice, PricesSection
from penstock.router.settings import ModelRoute, RouterSettings, RoutesSection
from penstock.rpc.auth import internal
from penstock.rpc.call import Call
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.errors import Fault
from penstock.service.clock import SystemClock
from penstock.service.store import embedded_store, open_store
from penstock.testkit.instance import EmptyInstance
from penstock.testkit.proxy import TcpProxy, tcp_proxy
from penstock.testkit.server import TOKEN, serving

from ..routed import Routed, StartRouter

LIMITER = limiter_pb2.DESCRIPTOR.services_by_name["LimiterService"]
INPUT_TOKENS = 4
"""That every answer reports."""
SMALL, LARGE = "small", "large"
PRICES = {
    SMALL: ModelPrice(name=SMALL, input_microusd_per_mtok=100_000),
    LARGE: ModelPrice(name=LARGE, input_microusd_per_mtok=1_500_000),
}
"""An answer of `small` costs 0.4 micro-dollars, one of `large` 6."""
FLOOR = 0.8
ROUTES = RoutesSection(
    models=tuple(
        ModelRoute(name=name, quality=quality, tasks=("classify",))
        for name, quality in ((SMALL, 0.6), (LARGE, 0.9))
    ),
    cascade_floor=FLOOR,
)


class Worker(EmptyInstance):
    """Embeds texts and chooses labels, once it has had its faults; or hangs."""

    def __init__(self, *faults: Fault, confidence: float = 1.0) -> None:
        self.faults = deque(faults)
        self.confidence = confidence
        self.hangs = False
        self.asked = 0
        self.cancelled = 0

    async def Compute(
        self, request: inference_pb2.ComputeRequest, call: Call
    ) -> inference_pb2.ComputeResponse:
        self.asked += 1
        if self.hangs:
            await self._hang()
        if self.faults:
            raise self.faults.popleft()
        result = inference_pb2.TaskResult(compute_ms=1.0, revision="1")
        if request.task.HasField("classify"):
            label = result.classify.classifications.add().labels.add(label="refund")
            label.score = self.confidence
        else:
            result.embed.embeddings.add(values=[1.0])
        result.usage.input_tokens = INPUT_TOKENS
        return inference_pb2.ComputeResponse(result=result)

    async def _hang(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled += 1


@dataclass
class RunRig:
    """The router, its limiter, and the connection between them."""

    routed: Routed
    limiter: LimiterServicer
    connection: TcpProxy

    async def start(self, parent: str = "", **limits: int) -> str:
        """Start a run or open a child; gives its id."""
        request = runs_pb2.StartRunRequest(parent_run_id=parent, limits=run_pb2.RunLimits(**limits))
        answer = await self.routed.stub.StartRun(request, metadata=self.routed.metadata)
        return str(answer.run.id)

    async def embed(
        self, run_id: str, step: str = "", model: str = SMALL, text: str = "hello"
    ) -> pb.EmbedResponse:
        options = pb.CallOptions(model=model, run_id=run_id, step=step)
        request = pb.EmbedRequest(texts=[text], options=options)
        answer: pb.EmbedResponse = await self.routed.stub.Embed(
            request, metadata=self.routed.metadata, timeout=20
        )
        return answer

    async def cost(self, run_id: str) -> runs_pb2.GetRunCostResponse:
        request = runs_pb2.GetRunCostRequest(run_id=run_id)
        answer: runs_pb2.GetRunCostResponse = await self.routed.stub.GetRunCost(
            request, metadata=self.routed.metadata
        )
        return answer

    async def run(self, run_id: str) -> run_pb2.Run:
        """The run, once nothing is held at it."""
        request = runs_pb2.GetRunRequest(run_id=run_id)
        answer = await self.routed.stub.GetRun(request, metadata=self.routed.metadata)
        run: run_pb2.Run = answer.runs[0]
        return run


@pytest.fixture
async def run_rig(start_router: StartRouter, tmp_path: Path) -> AsyncIterator[RunRig]:
    """A router that hedges every call it may, with no instances."""
    clock = SystemClock()
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(embedded_store(tmp_path / "store"))
        store = LedgerStore(open_store(url), clock, StoreTimings(5.0, 1.0))
        stack.push_async_callback(store.close)
        prices = PricesSection(models=tuple(PRICES.values()))
        limiter = LimiterServicer(LimiterSettings(), LimitsSection(), prices, store, clock)
        server = await stack.enter_async_context(
            serving([Endpoint(LIMITER, limiter, internal(TOKEN))])
        )
        connection = await stack.enter_async_context(tcp_proxy(server.address))
        settings = RouterSettings(limiter_address=connection.address, hedge_budget=1.0)
        routed = await stack.enter_async_context(
            start_router(settings, routes=ROUTES, prices=PRICES, store=open_store(url))
        )
        yield RunRig(routed, limiter, connection)
