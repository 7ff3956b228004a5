"""A call's way: admit → recall → choose → compute, and the receipt on the way back. Storing and settling follow the answer.

Ownership: an in-flight count belongs to the attempt that raised it, and falls in the same attempt's `finally`; a hold belongs to the
pipeline, which settles it exactly once, after the answer has left.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import grpc
from penstock.api.batcher.v1 import batcher_pb2
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.core import semantics
from penstock.core.call import Call
from penstock.core.clock import Clock
from penstock.core.errors import Fault, not_found, unavailable
from penstock.core.telemetry import Span, Telemetry
from penstock.router import policy
from penstock.router.adapters import Backends, Computed
from penstock.router.config import RouterSettings
from penstock.router.policy import Ask, Pick, RetryBudget
from penstock.router.registry import Registry
from penstock.router.requests import Asked
from penstock.router.stages import AdmissionStage, Admitted, Found, NotFound, RecallStage, ShapeStage

PICKS_KEPT = 4096
INSTANCE_FAULTS = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS}
)
"""Codes that speak against the instance; others speak of the request or of time."""


@dataclass(frozen=True)
class Outcome:
    """A finished call."""

    result: inference_pb2.TaskResult
    receipt: common_pb2.Receipt


@dataclass
class Trip:
    """One call on its way: what is known of it so far."""

    asked: Asked
    call: Call
    span: Span
    began_s: float
    receipt: common_pb2.Receipt = field(default_factory=common_pb2.Receipt)
    tried: set[str] = field(default_factory=set)


class Pipeline:
    """Runs calls. Owner of what follows an answer until it is done."""

    def __init__(
        self,
        settings: RouterSettings,
        registry: Registry,
        backends: Backends,
        stages: tuple[AdmissionStage, RecallStage, ShapeStage],
        clock: Clock,
        telemetry: Telemetry,
        rng: Random,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._backends = backends
        self._admission, self._recall, self._shape = stages
        self._clock = clock
        self._telemetry = telemetry
        self._rng = rng
        self._retries = RetryBudget(settings.retry_budget)
        self._after: set[asyncio.Task[None]] = set()
        self.picks: OrderedDict[str, Pick] = OrderedDict()
        self.branches: dict[str, int] = {}
        self._picks_counter = telemetry.counter("penstock.router.picks", "{pick}", "Picks by branch")
        self._attempts_counter = telemetry.counter("penstock.router.attempts", "{attempt}", "Attempts by outcome")

    async def run(self, asked: Asked, call: Call) -> Outcome:
        """Serve a task; raises Fault."""
        with self._telemetry.span("route", call, attributes=self._attributes(asked, call)) as span:
            trip = self._begin(asked, call, span)
            admitted = await self._admit(trip)
            outcome: Outcome | None = None
            try:
                outcome = await self._answer(trip)
                return outcome
            finally:
                self._later(self._admission.settle(admitted, outcome.receipt if outcome else None))

    async def _answer(self, trip: Trip) -> Outcome:
        found = await self._look_up(trip)
        if isinstance(found, Found):
            return self._finish(trip, found.result)
        result: inference_pb2.TaskResult | None = None
        try:
            computed = await self._compute(trip)
            result = computed.result
            assert result is not None
            return self._finish(trip, result)
        finally:
            self._later(self._recall.store(found.token, result, trip.receipt if result else None))

    async def stream(self, asked: Asked, call: Call) -> AsyncIterator[inference_pb2.GenerateChunk | Outcome]:
        """Serve a generate task piece by piece; the last thing yielded is the Outcome. A cut stream ends in a Fault, never in silence."""
        with self._telemetry.span("route", call, attributes=self._attributes(asked, call)) as span:
            trip = self._begin(asked, call, span)
            admitted = await self._admit(trip)
            outcome: Outcome | None = None
            found: NotFound | None = None
            try:
                looked = await self._look_up(trip)
                if isinstance(looked, Found):
                    yield _whole(looked.result)
                    outcome = self._finish(trip, looked.result)
                else:
                    found = looked
                    async for item in self._stream_pieces(trip):
                        if isinstance(item, Outcome):
                            outcome = item
                        else:
                            yield item
                assert outcome is not None
                yield outcome
            finally:
                self._after_stream(admitted, found, outcome)

    def _after_stream(self, admitted: Admitted, found: NotFound | None, outcome: Outcome | None) -> None:
        self._later(self._admission.settle(admitted, outcome.receipt if outcome else None))
        if found is not None:
            self._later(
                self._recall.store(
                    found.token, outcome.result if outcome else None, outcome.receipt if outcome else None
                )
            )

    def _begin(self, asked: Asked, call: Call, span: Span) -> Trip:
        self._retries.request()
        trip = Trip(asked, call, span, self._clock.monotonic())
        trace = span.call.traceparent
        trip.receipt.request_id = secrets.token_hex(8)
        trip.receipt.trace_id = trace[3:35]
        trip.receipt.run_id = call.run_id
        trip.receipt.model = asked.model
        if not self._registry.shared:
            trip.receipt.notes.append("registry not shared: Redis is unavailable")
        return trip

    async def _admit(self, trip: Trip) -> Admitted:
        admitted = await self._admission.admit(trip.span.call, trip.asked.options, trip.asked.work)
        trip.receipt.notes.extend(admitted.notes)
        return admitted

    async def _look_up(self, trip: Trip) -> Found | NotFound:
        """Ask the cache, and where it has nothing, shape the task for the model."""
        asked = trip.asked
        found = await self._recall.look_up(trip.span.call, asked.options, asked.task, asked.model)
        trip.receipt.notes.extend(found.notes)
        if found.cache is not None:
            trip.receipt.cache.CopyFrom(found.cache)
        if isinstance(found, Found):
            trip.receipt.savings.extend(found.savings)
            trip.receipt.model = found.model or asked.model
            return found
        shaped = self._shape.shape(asked.options, trip.call.principal, asked.task)
        trip.receipt.savings.extend(shaped.savings)
        trip.receipt.notes.extend(shaped.notes)
        if shaped.task is not asked.task:
            trip.asked = replace(asked, task=shaped.task)
        return found

    async def feedback(self, call: Call, request_id: str, correct: bool, note: str) -> bool:
        """Hand a caller's verdict to the cache; True when an entry was quarantined."""
        return await self._recall.feedback(call.principal, request_id, correct, note)

    async def _compute(self, trip: Trip) -> Computed:
        """Attempts on one instance after the other while that is safe and the retry budget lasts."""
        while True:
            instance, pick = self._choose(trip)
            outcome: bool | None = None
            try:
                computed = await self._backends.compute(
                    self._registration(instance.id), self._request(trip, instance.id), trip.span.call
                )
                outcome = True
                self._note_computed(trip, pick, computed)
                return computed
            except Fault as fault:
                outcome = self._blame(fault)
                if not self._may_retry(trip, fault):
                    raise
            finally:
                self._ended(instance, outcome)

    async def _stream_pieces(self, trip: Trip) -> AsyncIterator[inference_pb2.GenerateChunk | Outcome]:
        """As `_compute`; once a piece has left, a failure is the caller's to hear of."""
        while True:
            instance, pick = self._choose(trip)
            outcome: bool | None = None
            said = False
            try:
                pieces = self._backends.stream(
                    self._registration(instance.id), self._request(trip, instance.id), trip.span.call
                )
                async for piece in pieces:
                    if piece.chunk is not None:
                        said = True
                        yield piece.chunk
                    if piece.result is not None:
                        outcome = True
                        self._note_computed(trip, pick, piece)
                        yield self._finish(trip, piece.result)
                        return
                raise unavailable("the answer was cut before its end", reason="STREAM_CUT")
            except Fault as fault:
                outcome = self._blame(fault)
                if said or not self._may_retry(trip, fault):
                    raise
            finally:
                self._ended(instance, outcome)

    def _choose(self, trip: Trip) -> tuple[policy.Instance, Pick]:
        fleet, now = self._registry.fleet, self._clock.monotonic()
        ask = Ask(trip.asked.model, frozenset(trip.asked.options.required_capabilities), frozenset(trip.tried))
        pick = policy.pick(fleet, ask, now, self._rng, self._settings.strategy)
        self.branches[pick.branch] = self.branches.get(pick.branch, 0) + 1
        self._picks_counter.add(1, {"branch": pick.branch})
        self.picks[trip.receipt.request_id] = pick
        if len(self.picks) > PICKS_KEPT:
            self.picks.popitem(last=False)
        if not pick.instance_id:
            raise self._nobody(ask, pick)
        instance = fleet.instances[pick.instance_id]
        trip.tried.add(instance.id)
        policy.began(instance, now, fleet.speed())
        return instance, pick

    def _nobody(self, ask: Ask, pick: Pick) -> Fault:
        if not any(ask.model in instance.models for instance in self._registry.fleet.instances.values()):
            return not_found("options.model", f"no instance serves {ask.model!r}")
        why = "; ".join(f"{item.instance_id}: {item.filtered}" for item in pick.candidates[:4])
        return unavailable(f"no instance can serve {ask.model!r} now ({why})", retry_after_s=0.5, reason="NO_INSTANCE")

    def _registration(self, instance_id: str) -> router_pb2.Instance:
        return self._registry.registered[instance_id]

    def _request(self, trip: Trip, instance_id: str) -> batcher_pb2.ComputeRequest:
        asked = trip.asked
        return batcher_pb2.ComputeRequest(
            instance_id=instance_id, model=asked.model, task=asked.task, estimated_tokens=asked.work.input_tokens
        )

    def _blame(self, fault: Fault) -> bool | None:
        self._attempts_counter.add(1, {"code": fault.code.name})
        return False if fault.code in INSTANCE_FAULTS else None

    def _may_retry(self, trip: Trip, fault: Fault) -> bool:
        if fault.code is not grpc.StatusCode.UNAVAILABLE or len(trip.tried) >= self._settings.max_attempts:
            return False
        others = any(
            trip.asked.model in instance.models and instance.id not in trip.tried and not instance.lost
            for instance in self._registry.fleet.instances.values()
        )
        return others and trip.call.remaining_s(self._clock.monotonic()) > 0 and self._retries.take()

    def _ended(self, instance: policy.Instance, outcome: bool | None) -> None:
        policy.ended(instance, self._clock.monotonic(), self._registry.fleet.speed(), outcome)

    def _note_computed(self, trip: Trip, pick: Pick, computed: Computed) -> None:
        now = self._clock.monotonic()
        known = self._registry.fleet.instances.get(pick.instance_id)
        if known is not None and computed.load is not None and not self._settings.batcher_address:
            policy.reported(known, now, computed.load.in_flight)
        route = trip.receipt.route
        route.instance_id, route.reason, route.score = pick.instance_id, pick.branch, pick.score
        route.attempts, route.candidates = len(trip.tried), len(pick.candidates)
        if computed.batch is not None:
            trip.receipt.batch.CopyFrom(computed.batch)
        trip.span.set(semantics.INSTANCE, pick.instance_id)
        trip.span.set(semantics.ROUTE_REASON, pick.branch)
        trip.span.set(semantics.ROUTE_SCORE, pick.score)
        trip.span.set(semantics.ATTEMPTS, len(trip.tried))

    def _finish(self, trip: Trip, result: inference_pb2.TaskResult) -> Outcome:
        receipt = trip.receipt
        receipt.revision, receipt.compute_ms = result.revision, result.compute_ms
        receipt.usage.CopyFrom(result.usage)
        receipt.total_ms = (self._clock.monotonic() - trip.began_s) * 1e3
        trip.span.set(semantics.INPUT_TOKENS, result.usage.input_tokens)
        trip.span.set(semantics.OUTPUT_TOKENS, result.usage.output_tokens)
        trip.span.set(semantics.CACHE_OUTCOME, common_pb2.CacheOutcome.Name(receipt.cache.outcome))
        return Outcome(result, receipt)

    @staticmethod
    def _attributes(asked: Asked, call: Call) -> dict[str, str | int | float | bool]:
        return {
            semantics.REQUEST_MODEL: asked.model,
            semantics.OPERATION: {"embed": "embeddings", "generate": "chat"}.get(asked.work.kind, "invoke"),
            semantics.TENANT: call.principal.organisation,
            semantics.RUN: call.run_id,
            semantics.STEP: call.step,
            semantics.PRIORITY: call.priority,
        }

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do what follows the answer; a failure there is the stage's own to report and never the caller's."""
        task = asyncio.get_running_loop().create_task(work)
        self._after.add(task)
        task.add_done_callback(self._after.discard)

    async def drained(self) -> None:
        """Wait until everything that follows answers is done."""
        while self._after:
            await asyncio.gather(*self._after, return_exceptions=True)


def _whole(result: inference_pb2.TaskResult) -> inference_pb2.GenerateChunk:
    """A reused answer as one chunk."""
    answer = result.generate
    return inference_pb2.GenerateChunk(
        delta=answer.message.content, tool_calls=answer.message.tool_calls, finish_reason=answer.finish_reason
    )
