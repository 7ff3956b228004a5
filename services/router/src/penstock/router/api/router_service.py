"""The public door: each RPC is proto in, the pipeline, proto out."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from random import Random
from typing import TypeVar

from google.protobuf.message import Message
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.api.keys import KeyRing
from penstock.router.api.scoreboard import candidates_out, state_of
from penstock.router.calls.call_state import Outcome
from penstock.router.calls.cascade import Cascade
from penstock.router.calls.pipeline import Pipeline
from penstock.router.instances.registry import Registry
from penstock.router.jobs.jobs import Jobs
from penstock.router.requests import requests
from penstock.router.requests.task_memo import Repeats
from penstock.router.requests.work import Work
from penstock.router.routing.instance_choice import Pick
from penstock.router.routing.model_choice import Models
from penstock.router.routing.strategies import Ask
from penstock.router.runs.runs import Runs
from penstock.router.settings import RouterSettings, RoutesSection
from penstock.rpc.call import Call
from penstock.rpc.dispatch import Rest
from penstock.rpc.errors import Fault, invalid, not_found, unavailable
from penstock.service.clock import Clock

Task = inference_pb2.Task
R = TypeVar("R", bound=Message)


class RouterServicer:
    """penstock.api.router.v1.RouterService."""

    def __init__(
        self,
        settings: RouterSettings,
        keys: KeyRing,
        registry: Registry,
        pipeline: Pipeline,
        clock: Clock,
        models: Models | None = None,
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._registry = registry
        self._pipeline = pipeline
        self._clock = clock
        self.jobs: Jobs | None = None
        self.runs = Runs(clock)
        self._repeats = Repeats()
        self._models = models or Models(RoutesSection(), settings.default_model)
        self._cascade = Cascade(self._models, self._another)

    def Embed(self, request: pb.EmbedRequest, call: Call) -> pb.EmbedResponse | Rest:
        options = request.options
        task, work, digest = self._repeats.embed(options.model, request.texts)
        return self._serve(options, task, call, _embedded, work, digest)

    def Classify(self, request: pb.ClassifyRequest, call: Call) -> pb.ClassifyResponse | Rest:
        requests.check_texts(request.texts)
        task = inference_pb2.ClassifyTask(
            texts=request.texts, examples=request.examples, top_k=request.top_k
        )
        return self._serve(request.options, Task(classify=task), call, _classified)

    def Generate(self, request: pb.GenerateRequest, call: Call) -> pb.GenerateResponse | Rest:
        requests.check_generate(request.task)
        return self._serve(request.options, Task(generate=request.task), call, _generated)

    async def GenerateStream(
        self, request: pb.GenerateStreamRequest, call: Call
    ) -> AsyncIterator[pb.GenerateStreamResponse]:
        requests.check_generate(request.task)
        work, call = self._work(request.options, Task(generate=request.task), call)
        with self.runs.part_of(call):
            async with contextlib.aclosing(self._pipeline.stream(work, call)) as items:
                async for item in items:
                    if isinstance(item, Outcome):
                        self._account(call, item)
                        yield pb.GenerateStreamResponse(receipt=item.receipt)
                    else:
                        yield pb.GenerateStreamResponse(chunk=item)

    def Infer(self, request: pb.InferRequest, call: Call) -> pb.InferResponse | Rest:
        if not request.task.inputs:
            raise invalid("task.inputs", "needs at least one tensor")
        return self._serve(request.options, Task(infer=request.task), call, _inferred)

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
        cancelled = self.runs.cancel(call.principal.organisation, request.run_id)
        jobs = 0
        if self.jobs is not None:
            jobs = await self.jobs.cancel_run(request.run_id, call)
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
            asked, _ = self._work(request.options, request.task, call)
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
        _, call = self._work(request.options, request.task, call)
        return pb.SubmitJobResponse(job=await self._jobs().submit(request, call))

    async def GetJob(self, request: pb.GetJobRequest, call: Call) -> pb.GetJobResponse:
        return pb.GetJobResponse(job=await self._jobs().get(request.id, call))

    async def WatchJob(
        self, request: pb.WatchJobRequest, call: Call
    ) -> AsyncIterator[pb.WatchJobResponse]:
        async with contextlib.aclosing(self._jobs().watch(request.id, call)) as states:
            async for job in states:
                yield pb.WatchJobResponse(job=job)

    async def CancelJob(self, request: pb.CancelJobRequest, call: Call) -> pb.CancelJobResponse:
        return pb.CancelJobResponse(job=await self._jobs().cancel(request.id, call))

    async def serve_job(self, request: pb.SubmitJobRequest, call: Call) -> Outcome:
        """Serve a job's task as one of its caller's calls; raises Fault."""
        asked, call = self._work(request.options, request.task, call)
        return await self._run(asked, call)

    def _jobs(self) -> Jobs:
        if self.jobs is None:
            raise unavailable("jobs need Redis, and none is configured", reason="NO_REDIS")
        return self.jobs

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

    def _serve(
        self,
        options: pb.CallOptions,
        task: Task,
        call: Call,
        respond: Callable[[Outcome], R],
        work: Work | None = None,
        digest: bytes = b"",
    ) -> R | Callable[[], Awaitable[R]]:
        """The response where it is in memory, and otherwise what has to be awaited for it."""
        asked, call = self._work(options, task, call, work, digest)
        outcome = None if self._cascade.may_climb(asked) else self._pipeline.at_once(asked, call)
        if outcome is not None:
            self._account(call, outcome)
            return respond(outcome)

        async def rest() -> R:
            return respond(await self._run(asked, call))

        return rest

    async def _run(self, asked: requests.Asked, call: Call) -> Outcome:
        try:
            with self.runs.part_of(call):
                outcome = await self._booked(asked, call)
                return (
                    await self._cascade.climb(asked, call, outcome)
                    if self._cascade.may_climb(asked)
                    else outcome
                )
        except Fault as fault:
            raise requests.in_public_words(fault) from None

    async def _booked(self, asked: requests.Asked, call: Call) -> Outcome:
        outcome = await self._pipeline.run(asked, call)
        self._account(call, outcome)
        return outcome

    async def _another(self, asked: requests.Asked, call: Call) -> Outcome:
        """A further try of a call that has been served already: its run may have ended or spent its
        money meanwhile.
        """
        return await self._booked(asked, self.runs.enter(asked.options, call))

    def _account(self, call: Call, outcome: Outcome) -> None:
        self._models.served(outcome.receipt.request_id, outcome.receipt.model)
        self.runs.spent(call, outcome.receipt.cost.paid_microusd)

    def _work(
        self,
        options: pb.CallOptions,
        task: Task,
        call: Call,
        work: Work | None = None,
        digest: bytes = b"",
    ) -> tuple[requests.Asked, Call]:
        """The task as it will be served and the call within its run; `work` and `digest` where they
        are made already.
        """
        requests.check_options(options)
        priority = self._keys.capped(call.principal, options.priority or call.priority)
        run_id, step = options.run_id or call.run_id, options.step or call.step
        if (priority, run_id, step) != (call.priority, call.run_id, call.step):
            call = call._replace(priority=priority, run_id=run_id, step=step)
        work = work or requests.measure(options.model, task)
        chain = self._models.chain(
            options.model,
            work,
            options.required_capabilities,
            options.min_quality,
            self._registry.fleets.keys(),
            options.fallback_models,
        )
        model, *spare = chain.models
        if model != work.model:
            work = work._replace(model=model)
        asked = requests.Asked(options, model, task, work, tuple(spare), chain.reason, digest)
        return asked, self.runs.enter(options, call)

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
