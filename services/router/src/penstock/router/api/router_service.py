"""The public door: each RPC is proto in, the pipeline, proto out."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from random import Random

from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.api.scoreboard import candidates_out, state_of
from penstock.router.calls.call_state import Outcome
from penstock.router.calls.handler import CallHandler
from penstock.router.calls.pipeline import Pipeline
from penstock.router.instances.registry import Registry
from penstock.router.jobs.jobs import Jobs
from penstock.router.requests import requests
from penstock.router.requests.task_memo import Repeats
from penstock.router.routing.instance_choice import Pick
from penstock.router.routing.model_choice import Models
from penstock.router.routing.strategies import Ask
from penstock.router.runs.runs import Runs
from penstock.router.settings import RouterSettings
from penstock.rpc.call import Call
from penstock.rpc.dispatch import Continuation
from penstock.rpc.reasons import Reason
from penstock.rpc.errors import invalid, not_found, unavailable
from penstock.service.clock import Clock

Task = inference_pb2.Task


class RouterServicer:
    """penstock.api.router.v1.RouterService."""

    def __init__(
        self,
        settings: RouterSettings,
        calls: CallHandler,
        registry: Registry,
        pipeline: Pipeline,
        clock: Clock,
        models: Models,
        runs: Runs,
        jobs: Jobs | None,
    ) -> None:
        self._settings = settings
        self._calls = calls
        self._registry = registry
        self._pipeline = pipeline
        self._clock = clock
        self._models = models
        self._runs = runs
        self._jobs = jobs
        self._repeats = Repeats()

    def Embed(self, request: pb.EmbedRequest, call: Call) -> pb.EmbedResponse | Continuation:
        options = request.options
        task, work, digest = self._repeats.embed(options.model, request.texts)
        return self._calls.serve(options, task, call, _embedded, work, digest)

    def Classify(
        self, request: pb.ClassifyRequest, call: Call
    ) -> pb.ClassifyResponse | Continuation:
        requests.check_texts(request.texts)
        task = inference_pb2.ClassifyTask(
            texts=request.texts, examples=request.examples, top_k=request.top_k
        )
        return self._calls.serve(request.options, Task(classify=task), call, _classified)

    def Generate(
        self, request: pb.GenerateRequest, call: Call
    ) -> pb.GenerateResponse | Continuation:
        requests.check_generate(request.task)
        return self._calls.serve(request.options, Task(generate=request.task), call, _generated)

    async def GenerateStream(
        self, request: pb.GenerateStreamRequest, call: Call
    ) -> AsyncIterator[pb.GenerateStreamResponse]:
        requests.check_generate(request.task)
        stream = self._calls.stream(request.options, Task(generate=request.task), call)
        async with contextlib.aclosing(stream) as items:
            async for item in items:
                if isinstance(item, Outcome):
                    yield pb.GenerateStreamResponse(receipt=item.receipt)
                else:
                    yield pb.GenerateStreamResponse(chunk=item)

    def Infer(self, request: pb.InferRequest, call: Call) -> pb.InferResponse | Continuation:
        if not request.task.inputs:
            raise invalid("task.inputs", "needs at least one tensor")
        return self._calls.serve(request.options, Task(infer=request.task), call, _inferred)

    async def ListModels(self, request: pb.ListModelsRequest, call: Call) -> pb.ListModelsResponse:
        models: dict[str, pb.AvailableModel] = {}
        for instance in self._registry.registered.values():
            ready = (
                state_of(self._registry.members[instance.id], self._clock.monotonic())
                != pb.INSTANCE_STATE_LOST
            )
            for model in instance.models:
                row = models.setdefault(model.name, pb.AvailableModel(name=model.name))
                row.tasks[:] = sorted({*row.tasks, *model.tasks})
                row.max_input_tokens = max(row.max_input_tokens, model.max_input_tokens)
                row.ready_instances += ready and model.state == inference_pb2.MODEL_STATE_READY
        return pb.ListModelsResponse(models=[models[name] for name in sorted(models)])

    async def CancelRun(self, request: pb.CancelRunRequest, call: Call) -> pb.CancelRunResponse:
        if not request.run_id:
            raise invalid("run_id", "is empty")
        cancelled = self._runs.cancel(call.principal.organisation, request.run_id)
        jobs = 0
        if self._jobs is not None:
            jobs = await self._jobs.cancel_run(request.run_id, call)
        return pb.CancelRunResponse(cancelled_calls=cancelled, cancelled_jobs=jobs)

    async def Scoreboard(self, request: pb.ScoreboardRequest, call: Call) -> pb.ScoreboardResponse:
        fleets = self._registry.fleets
        names = [request.model] if request.model else sorted(fleets)
        now, rows = self._clock.monotonic(), dict[str, pb.ScoreboardRow]()
        for name in names:
            for candidate in candidates_out(
                self._look(name, frozenset(), 0), self._registry.members, now
            ):
                rows.setdefault(candidate.instance_id, self._row(candidate))
        return pb.ScoreboardResponse(
            rows=rows.values(),
            strategy=self._settings.strategy,
            branches=self._pipeline.attempts.branches,
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

    async def ExplainRoute(
        self, request: pb.ExplainRouteRequest, call: Call
    ) -> pb.ExplainRouteResponse:
        if request.request_id:
            found = self._pipeline.attempts.picks.get(request.request_id)
            if found is None:
                raise not_found(
                    "request_id",
                    f"{request.request_id!r} is not among the latest requests of this router",
                )
            pick = found
        else:
            asked, _ = self._calls.resolve(request.options, request.task, call)
            tokens = asked.work.input_tokens if asked.work.kind == "generate" else 0
            pick = self._look(asked.model, frozenset(request.options.required_capabilities), tokens)
        return pb.ExplainRouteResponse(
            instance_id=pick.member.id if pick.member else "",
            strategy=self._settings.strategy,
            branch=pick.branch,
            candidates=candidates_out(pick, self._registry.members, self._clock.monotonic()),
            estimated_tokens=requests.estimate_tokens(request.task),
        )

    async def SubmitJob(self, request: pb.SubmitJobRequest, call: Call) -> pb.SubmitJobResponse:
        requests.check_task(request.task)
        _, call = self._calls.resolve(request.options, request.task, call)
        return pb.SubmitJobResponse(job=await self._job_service().submit(request, call))

    async def GetJob(self, request: pb.GetJobRequest, call: Call) -> pb.GetJobResponse:
        return pb.GetJobResponse(job=await self._job_service().get(request.id, call))

    async def WatchJob(
        self, request: pb.WatchJobRequest, call: Call
    ) -> AsyncIterator[pb.WatchJobResponse]:
        async with contextlib.aclosing(self._job_service().watch(request.id, call)) as states:
            async for job in states:
                yield pb.WatchJobResponse(job=job)

    async def CancelJob(self, request: pb.CancelJobRequest, call: Call) -> pb.CancelJobResponse:
        return pb.CancelJobResponse(job=await self._job_service().cancel(request.id, call))

    def _job_service(self) -> Jobs:
        if self._jobs is None:
            raise unavailable("jobs need Redis, and none is configured", reason=Reason.NO_STORE)
        return self._jobs

    async def SendFeedback(
        self, request: pb.SendFeedbackRequest, call: Call
    ) -> pb.SendFeedbackResponse:
        if not request.request_id:
            raise invalid("request_id", "is empty")
        self._models.judge(request.request_id, request.correct)
        taken = await self._pipeline.feedback(
            call, request.request_id, request.correct, request.note
        )
        return pb.SendFeedbackResponse(quarantined=taken)

    def _look(self, model: str, needs: frozenset[str], tokens: int) -> Pick:
        """A pick that is not made."""
        return self._pipeline.attempts.look(model, Ask(tokens), needs, tokens, Random(0))


def _embedded(outcome: Outcome) -> pb.EmbedResponse:
    response = (
        pb.EmbedResponse()
    )  # merged, not made of arguments: that takes twice as long, and hits are mostly embeddings
    response.embeddings.MergeFrom(outcome.result.embed.embeddings)
    response.receipt.MergeFrom(outcome.receipt)
    return response


def _classified(outcome: Outcome) -> pb.ClassifyResponse:
    return pb.ClassifyResponse(
        classifications=outcome.result.classify.classifications, receipt=outcome.receipt
    )


def _generated(outcome: Outcome) -> pb.GenerateResponse:
    return pb.GenerateResponse(result=outcome.result.generate, receipt=outcome.receipt)


def _inferred(outcome: Outcome) -> pb.InferResponse:
    return pb.InferResponse(result=outcome.result.infer, receipt=outcome.receipt)
