"""The public service: each RPC turns messages into values, hands them on, and turns the outcome
into a message.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import prefixes_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.api.prefix_service import explain_prefix
from penstock.router.api.run_service import RunRpcs
from penstock.router.api.scoreboard import as_shown, candidates_to_proto, state_of
from penstock.router.calls.handler import CallHandler
from penstock.router.calls.pipeline import Pipeline
from penstock.router.calls.selection import Selection, no_model
from penstock.router.calls.state import Outcome
from penstock.router.identity.grants import Grant, visible
from penstock.router.instances.registry import Registry
from penstock.router.jobs.jobs import Jobs
from penstock.router.prompts.prefixes import Prefixes
from penstock.router.requests.recent_conversations import RecentConversations
from penstock.router.requests.resolved import RecentTexts, Task, sized, sized_any
from penstock.router.routing.choice import Chosen, InstanceChoice
from penstock.router.routing.model_choice import Models
from penstock.router.routing.needs import Needs, needs_of
from penstock.router.routing.strategy import RequestFeatures
from penstock.router.runs.cancels import RunCancels
from penstock.router.runs.started_runs import StartedRuns
from penstock.router.settings import RouterSettings
from penstock.rpc.call import Call
from penstock.rpc.dispatch import Continuation
from penstock.rpc.errors import invalid, not_found, unavailable
from penstock.rpc.reasons import Reason
from penstock.service.clock import Clock
from penstock.tasks.kinds import CLASSIFY, INFER, RERANK
from penstock.tasks.wire_request import translated


class RouterServicer(RunRpcs):
    """penstock.api.router.v1.RouterService; runs in `run_service.py`, prefixes in
    `prefix_service.py`.
    """

    def __init__(
        self,
        settings: RouterSettings,
        calls: CallHandler,
        registry: Registry,
        selection: Selection,
        pipeline: Pipeline,
        clock: Clock,
        models: Models,
        started: StartedRuns,
        cancels: RunCancels,
        prefixes: Prefixes,
        jobs: Jobs | None,
    ) -> None:
        super().__init__(started, cancels)
        self._settings = settings
        self._calls = calls
        self._registry = registry
        self._selection = selection
        self._pipeline = pipeline
        self._clock = clock
        self._models = models
        self._prefixes = prefixes
        self._jobs = jobs
        self._recent_texts = RecentTexts()
        self._recent_conversations = RecentConversations()

    def Embed(self, request: pb.EmbedRequest, call: Call) -> pb.EmbedResponse | Continuation:
        task = self._recent_texts.sized(request.texts)
        return self._calls.serve(request.options, task, call, _embedded)

    def Classify(
        self, request: pb.ClassifyRequest, call: Call
    ) -> pb.ClassifyResponse | Continuation:
        task = inference_pb2.ClassifyTask(
            texts=request.texts, examples=request.examples, top_k=request.top_k
        )
        classify = sized(CLASSIFY, Task(classify=task), "")
        return self._calls.serve(request.options, classify, call, _classified)

    def Generate(
        self, request: pb.GenerateRequest, call: Call
    ) -> pb.GenerateResponse | Continuation:
        generate = self._recent_conversations.sized(request.task, is_translated=call.is_translated)
        return self._calls.serve(request.options, generate, call, _generated)

    async def GenerateStream(
        self, request: pb.GenerateStreamRequest, call: Call
    ) -> AsyncIterator[pb.GenerateStreamResponse]:
        generate = self._recent_conversations.sized(request.task, is_translated=call.is_translated)
        stream = self._calls.stream(request.options, generate, call)
        has_bytes = False
        async with contextlib.aclosing(stream) as items:
            async for item in items:
                if isinstance(item, Outcome):
                    yield pb.GenerateStreamResponse(receipt=item.receipt)
                    continue
                piece = item.wire_piece
                has_bytes = has_bytes or bool(piece)
                if not has_bytes:
                    yield pb.GenerateStreamResponse(chunk=item)
                elif piece or item.finish_reason:
                    yield _only_bytes(piece, item.finish_reason)

    def Infer(self, request: pb.InferRequest, call: Call) -> pb.InferResponse | Continuation:
        infer = sized(INFER, Task(infer=request.task), "task.")
        return self._calls.serve(request.options, infer, call, _inferred)

    def Rerank(self, request: pb.RerankRequest, call: Call) -> pb.RerankResponse | Continuation:
        task = inference_pb2.RerankTask(
            query=request.query, documents=request.documents, top_n=request.top_n
        )
        rerank = sized(RERANK, Task(rerank=task), "")
        return self._calls.serve(request.options, rerank, call, _reranked)

    async def ListModels(self, request: pb.ListModelsRequest, call: Call) -> pb.ListModelsResponse:
        models: dict[str, pb.AvailableModel] = {}
        scope = self._calls.grant_of(call).scope
        for instance in self._registry.registered.values():
            ready = (
                state_of(self._registry.members[instance.id], self._clock.monotonic())
                != pb.INSTANCE_STATE_LOST
            )
            for model in instance.models:
                if not scope.covers_model(model.name):
                    continue
                row = models.get(model.name) or models.setdefault(
                    model.name, self._models.described(model.name)
                )
                row.tasks[:] = sorted({*row.tasks, *model.tasks})
                row.max_input_tokens = max(row.max_input_tokens, model.max_input_tokens)
                row.ready_instances += ready and model.state == inference_pb2.MODEL_STATE_READY
        return pb.ListModelsResponse(models=[models[name] for name in sorted(models)])

    async def GetScoreboard(
        self, request: pb.GetScoreboardRequest, call: Call
    ) -> pb.GetScoreboardResponse:
        grant = self._calls.grant_of(call)
        names = [request.model] if request.model else visible(grant.scope, self._registry.fleets)
        if not all(grant.scope.covers_model(name) for name in names):  # as if it were not there
            raise no_model(request.model)
        now, members = self._clock.monotonic(), self._registry.members
        rows: dict[str, pb.ScoreboardRow] = {}
        for name in names:
            choice = self._selection.preview(name, RequestFeatures(), Needs())
            for candidate in candidates_to_proto(choice, members, now):
                rows.setdefault(candidate.instance_id, self._row(candidate, grant))
        return pb.GetScoreboardResponse(
            rows=rows.values(),
            strategy=self._settings.strategy,
            branches=self._selection.branches,
        )

    def _row(self, candidate: pb.Candidate, grant: Grant) -> pb.ScoreboardRow:
        member = self._registry.members[candidate.instance_id]
        return pb.ScoreboardRow(
            instance=as_shown(self._registry.registered[member.id], grant),
            candidate=candidate,
            picks=member.picks,
            failures=member.failures,
            in_flight=member.own,
        )

    async def ExplainRoute(
        self, request: pb.ExplainRouteRequest, call: Call
    ) -> pb.ExplainRouteResponse:
        tokens, choice = 0, self._recorded_choice(request.request_id, call)
        if choice is None:
            resolved, _ = self._calls.resolve(request.options, sized_any(request.task), call)
            tokens = resolved.estimate.input_tokens
            features = RequestFeatures(tokens)
            choice = self._selection.preview(resolved.model, features, needs_of(resolved))
        return pb.ExplainRouteResponse(
            instance_id=choice.member.id if isinstance(choice, Chosen) else "",
            strategy=self._settings.strategy,
            branch=choice.branch,
            candidates=candidates_to_proto(choice, self._registry.members, self._clock.monotonic()),
            estimated_tokens=tokens,
        )

    def _recorded_choice(self, request_id: str, call: Call) -> InstanceChoice | None:
        """The choice that was made for a request of the caller's organisation; None where none is
        named.
        """
        if not request_id:
            return None
        choice = self._selection.recorded(call.principal.organisation, request_id)
        if choice is None:
            message = f"{request_id!r} is not among the latest requests of this router"
            raise not_found("request_id", message)
        return choice

    async def ExplainPrefix(
        self, request: prefixes_pb2.ExplainPrefixRequest, call: Call
    ) -> prefixes_pb2.ExplainPrefixResponse:
        return explain_prefix(self._prefixes, request, call.principal.organisation)

    async def SubmitJob(self, request: pb.SubmitJobRequest, call: Call) -> pb.SubmitJobResponse:
        request.task.CopyFrom(translated(request.task))
        _, call = self._calls.resolve(request.options, sized_any(request.task), call)
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
            raise unavailable("jobs need a store, and none is configured", reason=Reason.NO_STORE)
        return self._jobs

    async def SendFeedback(
        self, request: pb.SendFeedbackRequest, call: Call
    ) -> pb.SendFeedbackResponse:
        if not request.request_id:
            raise invalid("request_id", "is empty")
        self._models.judge(call.principal.organisation, request.request_id, request.correct)
        quarantined = await self._pipeline.feedback(
            call, request.request_id, request.correct, request.note
        )
        return pb.SendFeedbackResponse(quarantined=quarantined)


def _only_bytes(
    piece: bytes, finish_reason: inference_pb2.FinishReason
) -> pb.GenerateStreamResponse:
    """A chunk as it leaves to a caller who gets the provider's bytes, and reads these alone."""
    response = pb.GenerateStreamResponse()
    response.chunk.wire_piece = piece  # Once: pieces may be large, and each use copies them.
    response.chunk.finish_reason = finish_reason
    return response


def _embedded(outcome: Outcome) -> pb.EmbedResponse:
    # Merged, not made of arguments: that takes twice as long, and hits are mostly embeddings.
    response = pb.EmbedResponse()
    response.embeddings.MergeFrom(outcome.result.embed.embeddings)
    response.receipt.MergeFrom(outcome.receipt)
    return response


def _classified(outcome: Outcome) -> pb.ClassifyResponse:
    return pb.ClassifyResponse(
        classifications=outcome.result.classify.classifications, receipt=outcome.receipt
    )


def _reranked(outcome: Outcome) -> pb.RerankResponse:
    return pb.RerankResponse(ranking=outcome.result.rerank.ranking, receipt=outcome.receipt)


def _generated(outcome: Outcome) -> pb.GenerateResponse:
    body = outcome.result.generate.wire_body
    if body:
        only_bytes = inference_pb2.GenerateResult(wire_body=body)
        return pb.GenerateResponse(result=only_bytes, receipt=outcome.receipt)
    return pb.GenerateResponse(result=outcome.result.generate, receipt=outcome.receipt)


def _inferred(outcome: Outcome) -> pb.InferResponse:
    return pb.InferResponse(result=outcome.result.infer, receipt=outcome.receipt)
