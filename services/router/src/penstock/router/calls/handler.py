"""A caller's task from its options to its outcome: resolved to models, run, booked to its run.

The API's services and jobs both serve their calls through this.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.calls.call_state import Outcome
from penstock.router.calls.cascade import Cascade
from penstock.router.calls.pipeline import Pipeline
from penstock.router.instances.registry import Registry
from penstock.router.keys import KeyRing
from penstock.router.requests import requests
from penstock.router.requests.work import Work
from penstock.router.routing.model_choice import Models
from penstock.router.runs.runs import Runs
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault

Task = inference_pb2.Task
R = TypeVar("R")


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
        task: Task,
        call: Call,
        respond: Callable[[Outcome], R],
        work: Work | None = None,
        digest: bytes = b"",
    ) -> R | Callable[[], Awaitable[R]]:
        """The response where it is in memory, and otherwise what has to be awaited for it.

        `work` and `digest`: the task's size and digest, where they are known already.
        """
        asked, call = self.resolve(options, task, call, work, digest)
        outcome = None if self._cascade.may_climb(asked) else self._pipeline.at_once(asked, call)
        if outcome is not None:
            self._account(call, outcome)
            return respond(outcome)

        async def rest() -> R:
            return respond(await self._run(asked, call))

        return rest

    async def stream(
        self, options: pb.CallOptions, task: Task, call: Call
    ) -> AsyncGenerator[inference_pb2.GenerateChunk | Outcome, None]:
        """The answer piece by piece; the last thing yielded is the Outcome. Raises Fault."""
        asked, call = self.resolve(options, task, call)
        with self._runs.part_of(call):
            async with contextlib.aclosing(self._pipeline.stream(asked, call)) as items:
                async for item in items:
                    if isinstance(item, Outcome):
                        self._account(call, item)
                    yield item

    async def serve_job(self, request: pb.SubmitJobRequest, call: Call) -> Outcome:
        """Serve a job's task as one of its caller's calls; raises Fault."""
        asked, call = self.resolve(request.options, request.task, call)
        return await self._run(asked, call)

    def resolve(
        self,
        options: pb.CallOptions,
        task: Task,
        call: Call,
        work: Work | None = None,
        digest: bytes = b"",
    ) -> tuple[requests.Asked, Call]:
        """The task as it will be served, and the call within its run; raises Fault."""
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
        return asked, self._runs.enter(options, call)

    async def _run(self, asked: requests.Asked, call: Call) -> Outcome:
        try:
            with self._runs.part_of(call):
                outcome = await self._booked(asked, call)
                if not self._cascade.may_climb(asked):
                    return outcome
                return await self._cascade.climb(asked, call, outcome)
        except Fault as fault:
            raise requests.in_public_words(fault) from None

    async def _booked(self, asked: requests.Asked, call: Call) -> Outcome:
        outcome = await self._pipeline.run(asked, call)
        self._account(call, outcome)
        return outcome

    async def _again(self, asked: requests.Asked, call: Call) -> Outcome:
        """A further try of a call that has been served already: its run may have ended or spent its
        money meanwhile.
        """
        return await self._booked(asked, self._runs.enter(asked.options, call))

    def _account(self, call: Call, outcome: Outcome) -> None:
        self._models.served(outcome.receipt.request_id, outcome.receipt.model)
        self._runs.spent(call, outcome.receipt.cost.paid_microusd)
