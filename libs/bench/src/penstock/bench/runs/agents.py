"""Agents with subagents that call a stack in started runs; providers fail as they are told."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable

import grpc
from penstock.api.common.v1 import run_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.api.router.v1 import router_pb2_grpc, runs_pb2
from penstock.bench.runs.provider_books import CHAT, HEDGED, SILENT, VECTORS
from penstock.router.routing.fleet import LATENCIES_NEEDED
from penstock.stack.stack import Stack
from penstock.testkit.upstream import ScriptedUpstream, UpstreamFault

USUAL_S, SLOW_S = 0.25, 1.0
"""How long providers take, and a slow one, whose calls are hedged."""
AT_ONCE, HEDGED_CALLS = 8, 12
SILENT_CALLS = 3
FAULTY_SHARE = 0.2
"""Calls before which a provider is told to fail once."""
SETTLED_S = 20.0
FAULTS: tuple[UpstreamFault, ...] = ("500", "503", "reset")


class Agents:
    """The agents of a stack."""

    def __init__(
        self, stack: Stack, tenant: str, upstreams: list[ScriptedUpstream], seed: int
    ) -> None:
        self._router: router_pb2_grpc.RouterServiceStub = stack.router
        self._metadata = stack.metadata(tenant)
        self._upstreams = upstreams
        self._rng = random.Random(seed)
        self.failed = 0
        """Calls that every provider failed."""

    async def start(self, parent: str = "") -> str:
        """Start a run, or open a child."""
        limits = run_pb2.RunLimits(microusd=10**6 if parent else 10**8)
        request = runs_pb2.StartRunRequest(parent_run_id=parent, limits=limits, name="agent")
        answer = await self._router.StartRun(request, metadata=self._metadata)
        return str(answer.run.id)

    async def work(self, run_id: str, calls: int, children: int) -> None:
        """Make calls, with subagents beside them, while providers fail now and then."""
        opened = [await self.start(run_id) for _ in range(children)]
        subagents = [asyncio.create_task(self.work(child, calls, 0)) for child in opened]
        for number in range(calls):
            if self._rng.random() < FAULTY_SHARE:
                self._rng.choice(self._upstreams).faults.append(self._rng.choice(FAULTS))
            await self._tolerantly(self._call(run_id, f"step-{number % 3}", number))
        await asyncio.gather(*subagents)

    async def _call(self, run_id: str, step: str, number: int) -> None:
        """One call of a kind that its number says; every third repeats an earlier text."""
        text = f"{run_id} {step} what about {number if number % 3 else number // 6}"
        options = pb.CallOptions(run_id=run_id, step=step)
        match number % 5:
            case 0:
                await self._chat(options, text)
            case 1:
                await self._chat_streamed(options, text)
            case 2:
                await self._embed(options, text, VECTORS)
            case 3:
                await self._classify(options, text)
            case 4:
                await self._job(options, text)

    async def _embed(self, options: pb.CallOptions, text: str, model: str = HEDGED) -> None:
        options.model = model
        request = pb.EmbedRequest(texts=[text], options=options)
        await self._router.Embed(request, metadata=self._metadata, timeout=30)

    async def _chat(self, options: pb.CallOptions, text: str) -> None:
        options.model = CHAT
        await self._router.Generate(
            pb.GenerateRequest(options=options, task=_conversation(text)), metadata=self._metadata
        )

    async def _chat_streamed(self, options: pb.CallOptions, text: str) -> None:
        options.model = CHAT
        request = pb.GenerateStreamRequest(options=options, task=_conversation(text))
        async for _ in self._router.GenerateStream(request, metadata=self._metadata):
            pass

    async def _classify(self, options: pb.CallOptions, text: str) -> None:
        options.model = "auto"
        request = pb.ClassifyRequest(texts=[text], options=options)
        await self._router.Classify(request, metadata=self._metadata)

    async def _job(self, options: pb.CallOptions, text: str) -> None:
        options.model = CHAT
        job = pb.SubmitJobRequest(options=options)
        job.task.generate.CopyFrom(_conversation(text))
        submitted = await self._router.SubmitJob(job, metadata=self._metadata)
        watch = pb.WatchJobRequest(id=submitted.job.id)
        async for _ in self._router.WatchJob(watch, metadata=self._metadata):
            pass

    async def hedge(self, run_id: str) -> None:
        """Embed until the router knows the usual time, and then with one provider that is slower
        and one that is quicker than that.
        """
        for upstream in self._upstreams:
            upstream.first_token_s = USUAL_S
        for first in range(0, LATENCIES_NEEDED, AT_ONCE):
            texts = (f"{run_id} warm {number}" for number in range(first, first + AT_ONCE))
            options = pb.CallOptions(run_id=run_id, step="warm")
            await asyncio.gather(*(self._embed(options, text) for text in texts))
        self._upstreams[0].first_token_s, self._upstreams[1].first_token_s = SLOW_S, 0.0
        for number in range(HEDGED_CALLS):
            await self._embed(pb.CallOptions(run_id=run_id, step="slow"), f"{run_id} slow {number}")
        await asyncio.sleep(2 * SLOW_S)  # tries in vain are computed and billed to their end
        self._upstreams[0].first_token_s = 0.0

    async def be_silent(self, run_id: str) -> None:
        """Embed while no provider answers."""
        for number in range(SILENT_CALLS):
            for upstream in self._upstreams:
                upstream.faults.append("silence")
            text = f"{run_id} {SILENT} {number}"
            await self._tolerantly(self._embed(pb.CallOptions(run_id=run_id, step=SILENT), text))
            for upstream in self._upstreams:
                upstream.faults.clear()

    async def _tolerantly(self, call: Awaitable[object]) -> None:
        """Make a call that every provider may fail, as agents must."""
        try:
            await call
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            self.failed += 1

    async def cost(self, run_id: str) -> runs_pb2.GetRunCostResponse:
        """What a run has cost, once all its calls are settled."""
        request = runs_pb2.GetRunCostRequest(run_id=run_id)
        async with asyncio.timeout(SETTLED_S):
            while True:
                answer: runs_pb2.GetRunCostResponse = await self._router.GetRunCost(
                    request, metadata=self._metadata
                )
                if not any(run.held.calls for run in answer.runs):
                    return answer
                await asyncio.sleep(0.05)


def _conversation(text: str) -> inference_pb2.GenerateTask:
    message = inference_pb2.Message(role=inference_pb2.ROLE_USER, content=text)
    return inference_pb2.GenerateTask(messages=[message], max_tokens=200, temperature=0.0)
