"""A scripted router behind a public endpoint, for tests of clients."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.rpc.auth import Metadata
from penstock.rpc.call import Call, Principal
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.errors import Fault, unauthenticated
from penstock.tasks.rerank import ranking_of
from penstock.testkit.server import serving

ROUTER = pb.DESCRIPTOR.services_by_name["RouterService"]
KEY = "psk-client"
MODEL = "scripted"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
HANG = "hang"
"""A text that is never answered; as a conversation, its second piece never comes."""


class ScriptedRouter:
    """Embeds a text as its length, ranks documents by theirs, and streams three pieces.

    Other methods must not be called.

    Attributes:
        faults: raised one by one by the next calls, in order.
        calls: the options and the context of every call so far.
        hanging: set once a call for HANG waits.
        cancelled: set once a waiting call has been cancelled.
    """

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.calls: list[tuple[pb.CallOptions, Call]] = []
        self.hanging = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def Embed(self, request: pb.EmbedRequest, call: Call) -> pb.EmbedResponse:
        """See RouterService."""
        self.calls.append((request.options, call))
        if self.faults:
            raise self.faults.pop(0)
        if HANG in request.texts:
            await self._hang()
        receipt = common_pb2.Receipt(
            trace_id=TRACE_ID,
            total_ms=1.5,
            route=common_pb2.RouteReceipt(instance_id="one"),
            cost=common_pb2.Cost(paid_microusd=7),
        )
        embeddings = [inference_pb2.Embedding(values=[float(len(text))]) for text in request.texts]
        return pb.EmbedResponse(embeddings=embeddings, receipt=receipt)

    async def Rerank(self, request: pb.RerankRequest, call: Call) -> pb.RerankResponse:
        """See RouterService; long documents come first."""
        self.calls.append((request.options, call))
        sizes = [float(len(document)) for document in request.documents]
        return pb.RerankResponse(ranking=ranking_of(sizes, request.top_n).ranking)

    async def ListModels(self, request: pb.ListModelsRequest, call: Call) -> pb.ListModelsResponse:
        """See RouterService; `calls` and `faults` are left as they are."""
        return pb.ListModelsResponse(models=[pb.AvailableModel(name=MODEL, ready_instances=1)])

    async def GenerateStream(
        self, request: pb.GenerateStreamRequest, call: Call
    ) -> AsyncIterator[pb.GenerateStreamResponse]:
        """See RouterService; `faults` come after the last piece where a model is named."""
        self.calls.append((request.options, call))
        if self.faults and not request.options.model:
            raise self.faults.pop(0)
        for delta in "abc":
            yield pb.GenerateStreamResponse(chunk=inference_pb2.GenerateChunk(delta=delta))
            if request.task.messages[0].content == HANG:
                await self._hang()
        if self.faults:
            raise self.faults.pop(0)

    async def _hang(self) -> None:
        self.hanging.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    def __getattr__(self, name: str) -> object:
        if name in ROUTER.methods_by_name:
            return self._not_scripted
        raise AttributeError(name)

    async def _not_scripted(self, request: object, call: Call) -> None:
        raise AssertionError("the scripted router has no such method")


def authenticate(metadata: Metadata) -> Call:
    """Accept KEY.

    Raises:
        Fault: UNAUTHENTICATED for any other key.
    """
    if metadata.get("authorization") != f"Bearer {KEY}":
        raise unauthenticated("the API key is not known")
    return Call(Principal("acme"))


@contextlib.asynccontextmanager
async def serving_router(router: ScriptedRouter) -> AsyncIterator[str]:
    """Serve the router at a public endpoint; yields the address."""
    async with serving([Endpoint(ROUTER, router, authenticate, public=True)]) as server:
        yield server.address
