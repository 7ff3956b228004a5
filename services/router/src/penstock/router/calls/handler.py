"""A caller's task from its options to its outcome: resolved to models, run, booked to its run.

The public service and jobs both serve their calls through this.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import TypeVar

from google.protobuf.message import Message
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.calls.cascade import Cascade
from penstock.router.calls.pipeline import Pipeline
from penstock.router.calls.state import Outcome
from penstock.router.identity.grants import Grant, permitted_models, visible
from penstock.router.instances.registry import Registry
from penstock.router.keys import KeyRing
from penstock.router.requests.resolved import (
    JobTry,
    ResolvedRequest,
    SizedTask,
    check_options,
    in_public_words,
    sized_any,
)
from penstock.router.routing.model_choice import AUTO, Models
from penstock.router.runs.runs import Runs
from penstock.rpc.call import Call
from penstock.rpc.dispatch import Continuation
from penstock.rpc.errors import Fault

R = TypeVar("R", bound=Message)


class CallHandler:
    """Serves tasks of authenticated callers."""

    def __init__(
        self, keys: KeyRing, models: Models, registry: Registry, pipeline: Pipeline, runs: Runs
    ) -> None:
        self._keys = keys
        self._models = models
        self._registry = registry
        self._pipeline = pipeline
        self._runs = runs
        self._cascade = Cascade(models, self._again)

    def serve(
        self,
        options: pb.CallOptions,
        sized: SizedTask,
        call: Call,
        respond: Callable[[Outcome], R],
    ) -> R | Continuation:
        """The response where the answer is in this process, and otherwise what has to be awaited
        for it. Raises Fault.
        """
        request, call = self.resolve(options, sized, call)
        outcome = None
        if not self._may_climb(request):
            outcome = self._pipeline.from_memory(request, call)
        if outcome is not None:
            self._book(call, outcome)
            return respond(outcome)
        request = request._replace(options=_own(options))

        async def responded() -> R:
            return respond(await self._run(request, call))

        return responded

    async def stream(
        self, options: pb.CallOptions, sized: SizedTask, call: Call
    ) -> AsyncGenerator[inference_pb2.GenerateChunk | Outcome, None]:
        """The answer piece by piece; the last thing yielded is the Outcome. Raises Fault."""
        request, call = self.resolve(_own(options), sized, call)
        with self._runs.part_of(call):
            async with contextlib.aclosing(self._pipeline.stream(request, call)) as items:
                async for item in items:
                    if isinstance(item, Outcome):
                        self._book(call, item)
                    yield item

    async def serve_job(self, job: pb.SubmitJobRequest, call: Call, attempt: JobTry) -> Outcome:
        """Serve one try of a job's task as one of its caller's calls; raises Fault."""
        grant = self._keys.grant_of_job(call.principal, call.priority)
        request, call = self._resolve(job.options, sized_any(job.task), call, grant)
        return await self._run(request._replace(job=attempt), call)

    async def outcome_of(self, options: pb.CallOptions, sized: SizedTask, call: Call) -> Outcome:
        """Serve a task to its end; raises Fault."""
        request, call = self.resolve(options, sized, call)
        return await self._run(request, call)

    def resolve(
        self, options: pb.CallOptions, sized: SizedTask, call: Call
    ) -> tuple[ResolvedRequest, Call]:
        """The request as it will be served, and the call within its run; raises Fault."""
        return self._resolve(options, sized, call, self._keys.grant(call.principal))

    def _resolve(
        self, options: pb.CallOptions, sized: SizedTask, call: Call, grant: Grant
    ) -> tuple[ResolvedRequest, Call]:
        check_options(options)
        priority = grant.priority(options.priority or call.priority)
        run_id, step = options.run_id or call.run_id, options.step or call.step
        if (priority, run_id, step) != (call.priority, call.run_id, call.step):
            call = call._replace(priority=priority, run_id=run_id, step=step)
        kind, task, estimate, digest = sized
        serving = visible(grant.scope, self._registry.fleets)
        chain, why = self._models.chain(options, kind, estimate, serving)
        permitted = permitted_models(grant.scope, kind.name, options, chain)
        if isinstance(permitted, Fault):
            raise permitted
        first, *spare = permitted.models
        request = ResolvedRequest(options, kind, task, first, estimate, tuple(spare), why, digest)
        return request, self._runs.enter(options, call) if call.run_id else call

    def grant_of(self, call: Call) -> Grant:
        """What the caller may use, and so may see; raises UNAUTHENTICATED."""
        return self._keys.grant(call.principal)

    async def _run(self, request: ResolvedRequest, call: Call) -> Outcome:
        try:
            if not call.run_id:
                return await self._climbed(request, call)
            with self._runs.part_of(call):
                return await self._climbed(request, call)
        except Fault as fault:
            raise in_public_words(request.kind, fault) from None

    async def _climbed(self, request: ResolvedRequest, call: Call) -> Outcome:
        outcome = await self._booked(request, call)
        if self._may_climb(request):
            outcome = await self._cascade.climb(request, call, outcome)
        return outcome

    def _may_climb(self, request: ResolvedRequest) -> bool:
        automatic = request.options.model == AUTO
        return automatic and self._cascade.may_climb(request)

    async def _booked(self, request: ResolvedRequest, call: Call) -> Outcome:
        outcome = await self._pipeline.run(request, call)
        self._book(call, outcome)
        return outcome

    async def _again(self, request: ResolvedRequest, call: Call) -> Outcome:
        """A further try of a call that has been served already: its run may have ended or spent its
        money meanwhile.
        """
        return await self._booked(request, self._runs.enter(request.options, call))

    def _book(self, call: Call, outcome: Outcome) -> None:
        receipt = outcome.receipt
        self._models.served(call.principal.organisation, receipt.request_id, receipt.model)
        if call.run_id:
            self._runs.spent(call, outcome.receipt.cost.paid_microusd)


def _own(options: pb.CallOptions) -> pb.CallOptions:
    """A copy: options are a part of the whole request, which would be kept with them."""
    own = pb.CallOptions()
    own.CopyFrom(options)
    return own
