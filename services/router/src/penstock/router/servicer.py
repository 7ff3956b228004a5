"""The public door: each RPC is proto in, the pipeline, proto out."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from random import Random

import grpc
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.core.call import Call
from penstock.core.clock import Clock
from penstock.core.errors import Fault, invalid, not_found, unavailable
from penstock.router import requests
from penstock.router.config import RouterSettings
from penstock.router.jobs import Jobs
from penstock.router.keys import KeyRing
from penstock.router.pipeline import Pipeline
from penstock.router.policy import Pick
from penstock.router.registry import Registry
from penstock.router.scoreboard import candidates_out, state_of
from penstock.router.strategies import Ask
from penstock.router.trip import Outcome

Task = inference_pb2.Task


class RouterServicer:
    """penstock.api.router.v1.RouterService."""

    def __init__(
        self, settings: RouterSettings, keys: KeyRing, registry: Registry, pipeline: Pipeline, clock: Clock
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._registry = registry
        self._pipeline = pipeline
        self._clock = clock
        self.jobs: Jobs | None = None
        self._runs: defaultdict[tuple[str, str], set[asyncio.Task[object]]] = defaultdict(set)
        self._ended_runs: set[asyncio.Task[object]] = set()

    async def Embed(self, request: pb.EmbedRequest, call: Call) -> pb.EmbedResponse:
        requests.check_texts(request.texts)
        outcome = await self._run(request.options, Task(embed=inference_pb2.EmbedTask(texts=request.texts)), call)
        return pb.EmbedResponse(embeddings=outcome.result.embed.embeddings, receipt=outcome.receipt)

    async def Classify(self, request: pb.ClassifyRequest, call: Call) -> pb.ClassifyResponse:
        requests.check_texts(request.texts)
        task = inference_pb2.ClassifyTask(texts=request.texts, examples=request.examples, top_k=request.top_k)
        outcome = await self._run(request.options, Task(classify=task), call)
        return pb.ClassifyResponse(classifications=outcome.result.classify.classifications, receipt=outcome.receipt)

    async def Generate(self, request: pb.GenerateRequest, call: Call) -> pb.GenerateResponse:
        requests.check_generate(request.task)
        outcome = await self._run(request.options, Task(generate=request.task), call)
        return pb.GenerateResponse(result=outcome.result.generate, receipt=outcome.receipt)

    async def GenerateStream(
        self, request: pb.GenerateStreamRequest, call: Call
    ) -> AsyncIterator[pb.GenerateStreamResponse]:
        requests.check_generate(request.task)
        work, call = self._work(request.options, Task(generate=request.task), call)
        with self._part_of_run(call):
            async with contextlib.aclosing(self._pipeline.stream(work, call)) as items:
                async for item in items:
                    if isinstance(item, Outcome):
                        yield pb.GenerateStreamResponse(receipt=item.receipt)
                    else:
                        yield pb.GenerateStreamResponse(chunk=item)

    async def Infer(self, request: pb.InferRequest, call: Call) -> pb.InferResponse:
        if not request.task.inputs:
            raise invalid("task.inputs", "needs at least one tensor")
        outcome = await self._run(request.options, Task(infer=request.task), call)
        return pb.InferResponse(result=outcome.result.infer, receipt=outcome.receipt)

    async def ListModels(self, request: pb.ListModelsRequest, call: Call) -> pb.ListModelsResponse:
        models: dict[str, pb.AvailableModel] = {}
        for instance in self._registry.registered.values():
            ready = state_of(self._registry.members[instance.id], self._clock.monotonic()) != pb.INSTANCE_STATE_LOST
            for model in instance.models:
                row = models.setdefault(model.name, pb.AvailableModel(name=model.name))
                row.tasks[:] = sorted({*row.tasks, *model.tasks})
                row.max_input_tokens = max(row.max_input_tokens, model.max_input_tokens)
                row.ready_instances += ready and model.state == inference_pb2.MODEL_STATE_READY
        return pb.ListModelsResponse(models=[models[name] for name in sorted(models)])

    async def CancelRun(self, request: pb.CancelRunRequest, call: Call) -> pb.CancelRunResponse:
        if not request.run_id:
            raise invalid("run_id", "is empty")
        tasks = self._runs.pop((call.principal.organisation, request.run_id), set())
        for task in tasks:
            self._ended_runs.add(task)
            task.cancel()
        jobs = await self.jobs.cancel_run(request.run_id, call) if self.jobs is not None else 0
        return pb.CancelRunResponse(cancelled_calls=len(tasks), cancelled_jobs=jobs)

    async def Scoreboard(self, request: pb.ScoreboardRequest, call: Call) -> pb.ScoreboardResponse:
        fleets = self._registry.fleets
        names = [request.model] if request.model else sorted(fleets)
        now, rows = self._clock.monotonic(), dict[str, pb.ScoreboardRow]()
        for name in names:
            for candidate in candidates_out(self._look(name, frozenset(), 0), self._registry.members, now):
                rows.setdefault(candidate.instance_id, self._row(candidate))
        return pb.ScoreboardResponse(
            rows=rows.values(), strategy=self._settings.strategy, branches=self._pipeline.attempts.branches
        )

    def _row(self, candidate: pb.Candidate) -> pb.ScoreboardRow:
        known = self._registry.members[candidate.instance_id]
        return pb.ScoreboardRow(
            instance=self._registry.registered[known.id],
            candidate=candidate,
            picks=known.picks,
            failures=known.failures,
            in_flight=known.own,
        )

    async def ExplainRoute(self, request: pb.ExplainRouteRequest, call: Call) -> pb.ExplainRouteResponse:
        if request.request_id:
            found = self._pipeline.attempts.picks.get(request.request_id)
            if found is None:
                raise not_found("request_id", f"{request.request_id!r} is not among the latest requests of this router")
            pick = found
        else:
            work, _ = self._work(request.options, request.task, call)
            tokens = work.work.input_tokens if work.work.kind == "generate" else 0
            pick = self._look(work.model, frozenset(request.options.required_capabilities), tokens)
        return pb.ExplainRouteResponse(
            instance_id=pick.member.id if pick.member else "",
            strategy=self._settings.strategy,
            branch=pick.branch,
            candidates=candidates_out(pick, self._registry.members, self._clock.monotonic()),
            estimated_tokens=requests.estimate_tokens(request.task),
        )

    async def SubmitJob(self, request: pb.SubmitJobRequest, call: Call) -> pb.SubmitJobResponse:
        requests.check_task(request.task)
        _, call = self._work(request.options, request.task, call)
        return pb.SubmitJobResponse(job=await self._jobs().submit(request, call))

    async def GetJob(self, request: pb.GetJobRequest, call: Call) -> pb.GetJobResponse:
        return pb.GetJobResponse(job=await self._jobs().get(request.id, call))

    async def WatchJob(self, request: pb.WatchJobRequest, call: Call) -> AsyncIterator[pb.WatchJobResponse]:
        async with contextlib.aclosing(self._jobs().watch(request.id, call)) as states:
            async for job in states:
                yield pb.WatchJobResponse(job=job)

    async def CancelJob(self, request: pb.CancelJobRequest, call: Call) -> pb.CancelJobResponse:
        return pb.CancelJobResponse(job=await self._jobs().cancel(request.id, call))

    async def serve_job(self, request: pb.SubmitJobRequest, call: Call) -> Outcome:
        """Serve a job's task as one of its caller's calls; raises Fault."""
        return await self._run(request.options, request.task, call)

    def _jobs(self) -> Jobs:
        if self.jobs is None:
            raise unavailable("jobs need Redis, and none is configured", reason="NO_REDIS")
        return self.jobs

    async def SendFeedback(self, request: pb.SendFeedbackRequest, call: Call) -> pb.SendFeedbackResponse:
        if not request.request_id:
            raise invalid("request_id", "is empty")
        taken = await self._pipeline.feedback(call, request.request_id, request.correct, request.note)
        return pb.SendFeedbackResponse(quarantined=taken)

    async def _run(self, options: pb.CallOptions, task: Task, call: Call) -> Outcome:
        work, call = self._work(options, task, call)
        try:
            with self._part_of_run(call):
                return await self._pipeline.run(work, call)
        except Fault as fault:
            raise requests.in_public_words(fault) from None

    def _work(self, options: pb.CallOptions, task: Task, call: Call) -> tuple[requests.Asked, Call]:
        requests.check_options(options)
        priority = self._keys.capped(call.principal, options.priority or call.priority)
        call = replace(call, run_id=options.run_id or call.run_id, step=options.step or call.step, priority=priority)
        model = options.model or self._settings.default_model
        return requests.measure(options, model, task), call

    @contextlib.contextmanager
    def _part_of_run(self, call: Call) -> Iterator[None]:
        """Let the run's cancel reach this call while it lasts."""
        task = asyncio.current_task()
        if not call.run_id or task is None:
            yield
            return
        key = (call.principal.organisation, call.run_id)
        self._runs[key].add(task)
        try:
            yield
        except asyncio.CancelledError:
            if task not in self._ended_runs:
                raise
            # gRPC sends no status for a handler that was cancelled from inside; the caller is owed one.
            task.uncancel()
            raise Fault(
                grpc.StatusCode.CANCELLED, f"the run {call.run_id} was cancelled", reason="RUN_CANCELLED"
            ) from None
        finally:
            self._ended_runs.discard(task)
            self._runs[key].discard(task)
            if not self._runs[key]:
                del self._runs[key]

    def _look(self, model: str, needs: frozenset[str], tokens: int) -> Pick:
        """A pick that is not made."""
        return self._pipeline.attempts.look(model, Ask(tokens), needs, tokens, Random(0))
