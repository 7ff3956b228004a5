"""Requests in flight are counted exactly: whatever happens to a thousand calls, cancelled, timed
out, failed, cut or hedged, no count is left.
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
from penstock.router.settings import RouterSettings
from penstock.rpc.call import Call
from penstock.rpc.errors import internal as internal_fault
from penstock.rpc.errors import unavailable
from penstock.testkit.eventually import eventually
from penstock.testkit.instance import EmptyInstance

from ..routed import METADATA, StartRouter

CALLS = 1000


class Unreliable(EmptyInstance):
    """An instance that answers, stalls, fails or cuts its stream, by lot."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    async def _act(self) -> None:
        lot = self._rng.random()
        if lot < 0.05:
            raise unavailable("gone")
        if lot < 0.08:
            raise internal_fault("sick")
        await asyncio.sleep(5.0 if lot < 0.12 else self._rng.uniform(0.0, 0.01))

    async def Compute(
        self, request: inference_pb2.ComputeRequest, call: Call
    ) -> inference_pb2.ComputeResponse:
        await self._act()
        result = inference_pb2.TaskResult(revision="1")
        result.embed.embeddings.add(values=[1.0])
        return inference_pb2.ComputeResponse(result=result)

    async def ComputeStream(
        self, request: object, call: Call
    ) -> AsyncIterator[inference_pb2.ComputeStreamResponse]:
        for _ in range(5):
            yield inference_pb2.ComputeStreamResponse(chunk=inference_pb2.GenerateChunk(delta="x"))
            await self._act()
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
            messages=[inference_pb2.Message(role=inference_pb2.ROLE_USER, content="hi")]
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


async def test_every_count_is_zero_after_a_thousand_ends_of_all_kinds(
    start_router: StartRouter,
) -> None:
    rng = Random(11)
    async with start_router(RouterSettings(default_model="m", try_deadline_ms=400)) as routed:
        for name in ("a", "b", "c"):
            await routed.join(name, Unreliable(Random(name)), "m", concurrency=4)
        codes, room = Counter[str](), asyncio.Semaphore(32)

        async def caller() -> None:
            async with room:
                codes[await _one(routed.stub, rng)] += 1

        await asyncio.gather(*(caller() for _ in range(CALLS)))
        members = routed.registry.members.values()
        await eventually(lambda: not any(member.own for member in members))
    assert codes.total() == CALLS
    assert {"OK", "CANCELLED", "DEADLINE_EXCEEDED", "UNAVAILABLE"} <= set(codes)
