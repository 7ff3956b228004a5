"""Whatever happens to a thousand calls, cancelled, timed out, failed, cut, hedged, no count stays
behind.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from random import Random

import grpc
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.api.router.v1 import router_pb2_grpc
from penstock.otel.telemetry import NO_TELEMETRY
from penstock.router.__main__ import ROUTER
from penstock.router.api.keys import KeyRing, digest
from penstock.router.api.router_service import RouterServicer
from penstock.router.calls.attempts import Attempts
from penstock.router.calls.pipeline import Pipeline
from penstock.router.instances.backends import INFERENCE, Backends
from penstock.router.instances.registry import Registry
from penstock.router.settings import KeySection, RouterSettings
from penstock.router.stages import NoRecall, NoShape, OpenAdmission
from penstock.rpc.auth import internal
from penstock.rpc.call import Call
from penstock.rpc.endpoint import Door
from penstock.rpc.errors import internal as internal_fault
from penstock.rpc.errors import unavailable
from penstock.rpc.peers.stream import connect, open_channel
from penstock.service.clock import SystemClock
from penstock.testkit.instance import QuietInstance
from penstock.testkit.server import TOKEN, serving

METADATA = (("authorization", "Bearer psk"),)
CALLS = 1000


class Moody(QuietInstance):
    """An instance that answers, dawdles, fails or cuts, by lot."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    async def _mood(self) -> None:
        mood = self._rng.random()
        if mood < 0.05:
            raise unavailable("gone")
        if mood < 0.08:
            raise internal_fault("sick")
        await asyncio.sleep(5.0 if mood < 0.12 else self._rng.uniform(0.0, 0.01))

    async def Compute(
        self, request: inference_pb2.ComputeRequest, call: Call
    ) -> inference_pb2.ComputeResponse:
        await self._mood()
        result = inference_pb2.TaskResult(revision="1")
        result.embed.embeddings.add(values=[1.0])
        return inference_pb2.ComputeResponse(result=result)

    async def ComputeStream(
        self, request: object, call: Call
    ) -> AsyncIterator[inference_pb2.ComputeStreamResponse]:
        for _ in range(5):
            yield inference_pb2.ComputeStreamResponse(chunk=inference_pb2.GenerateChunk(delta="x"))
            await self._mood()
        if self._rng.random() < 0.8:
            yield inference_pb2.ComputeStreamResponse(result=inference_pb2.TaskResult(revision="1"))


async def _one(stub: router_pb2_grpc.RouterServiceStub, rng: Random) -> str:
    """One call, ended in one of the ways a caller can end it; gives the code."""
    timeout = rng.choice((0.005, 0.02, 2.0))
    if rng.random() < 0.5:
        call = stub.Embed(pb.EmbedRequest(texts=["x"]), metadata=METADATA, timeout=timeout)
        reading = asyncio.ensure_future(_whole(call))
    else:
        task = inference_pb2.GenerateTask(
            messages=[inference_pb2.Message(role="user", content="hi")]
        )
        call = stub.GenerateStream(
            pb.GenerateStreamRequest(task=task), metadata=METADATA, timeout=timeout
        )
        reading = asyncio.ensure_future(_all(call))
    if rng.random() < 0.3:
        await asyncio.sleep(rng.uniform(0.0, 0.01))
        call.cancel()
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
        await reading
    return str((await call.code()).name)


async def _whole(call: object) -> None:
    await call  # type: ignore[misc]


async def _all(call: object) -> None:
    async for _ in call:  # type: ignore[attr-defined]
        pass


async def test_every_count_is_zero_after_a_thousand_ends_of_all_kinds() -> None:
    rng, clock, settings = (
        Random(11),
        SystemClock(),
        RouterSettings(default_model="m", try_deadline_ms=400),
    )
    keys = KeyRing([KeySection(id="k", sha256=digest("psk"), organisation="acme")])
    registry = Registry(settings, None, clock)
    backends = Backends(lambda address, service: connect(address, service, token=TOKEN), "")
    attempts = Attempts(settings, registry, backends, clock, NO_TELEMETRY, Random(2))
    pipeline = Pipeline(attempts, (OpenAdmission(), NoRecall(), NoShape()), clock, NO_TELEMETRY)
    servicer = RouterServicer(settings, keys, registry, pipeline, clock)
    model = inference_pb2.Model(name="m", state=inference_pb2.MODEL_STATE_READY)
    async with contextlib.AsyncExitStack() as stack:
        for name in ("a", "b", "c"):
            door = Door(INFERENCE, Moody(Random(name)), internal(TOKEN))
            server = await stack.enter_async_context(serving([door]))
            await registry.register(
                pb.Instance(id=name, address=server.address, models=[model], concurrency=4)
            )
        server = await stack.enter_async_context(
            serving([Door(ROUTER, servicer, keys.authenticate, public=True)])
        )
        stub = router_pb2_grpc.RouterServiceStub(
            await stack.enter_async_context(open_channel(server.address))
        )
        codes, room = Counter[str](), asyncio.Semaphore(32)

        async def caller() -> None:
            async with room:
                codes[await _one(stub, rng)] += 1

        await asyncio.gather(*(caller() for _ in range(CALLS)))
        async with asyncio.timeout(10):
            while any(member.own for member in registry.members.values()):
                await asyncio.sleep(0.02)
            await pipeline.drained()
        await backends.close()
    assert codes.total() == CALLS
    assert {"OK", "CANCELLED", "DEADLINE_EXCEEDED", "UNAVAILABLE"} <= set(codes)
    assert [member.own for member in registry.members.values()] == [0, 0, 0]
