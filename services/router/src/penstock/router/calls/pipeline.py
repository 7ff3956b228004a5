"""A call's way: admit → recall → shape → compute, and the receipt on the way back.

Storing and settling follow the answer.

Ownership: a hold belongs to the pipeline, which settles it exactly once, after the answer has left.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

import grpc
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.otel import attributes as semantics
from penstock.otel.telemetry import Telemetry
from penstock.prices.prices import Prices
from penstock.router.calls.attempts import Attempts
from penstock.router.calls.billing import bill
from penstock.router.calls.call_state import Outcome, Trip
from penstock.router.requests.requests import BYTES_A_TOKEN, Asked, confidence
from penstock.router.stages import (
    AdmissionStage,
    Admitted,
    Found,
    Later,
    NotFound,
    RecallStage,
    ShapeStage,
    Spent,
    finish,
)
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault, unavailable
from penstock.rpc.spans import Own, Span
from penstock.service.clock import Clock
from penstock.service.random_ids import RandomIds

OUTCOMES = {number: name for name, number in common_pb2.CacheOutcome.items()}
REFRESH_S = 60.0
"""Most time that fetching the new answer for a stale one may take."""
OPERATIONS = {"embed": "embeddings", "generate": "chat"}


class Pipeline:
    """Runs calls.

    Owner of what follows an answer until it is done. `notes` tells what is being lost without
    failing calls.
    """

    def __init__(
        self,
        attempts: Attempts,
        stages: tuple[AdmissionStage, RecallStage, ShapeStage],
        clock: Clock,
        telemetry: Telemetry,
        prices: Callable[[], Prices],
        notes: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self.attempts = attempts
        self._admission, self._recall, self._shape = stages
        self._clock = clock
        self._telemetry = telemetry
        self._notes = notes
        self._prices = prices
        self._after: set[asyncio.Task[None]] = set()
        self._ids = RandomIds()

    def at_once(self, asked: Asked, call: Call) -> Outcome | None:
        """Serve a task from memory, without waiting for anything; None, and nothing done, where
        `run` must be asked. Raises Fault.
        """
        found = self._recall.at_hand(call, asked.options, asked.task, asked.model, asked.digest)
        admitted = (
            self._admission.at_once(call, asked.options, asked.work) if found is not None else None
        )
        if found is None or admitted is None:
            return None
        with self._telemetry.span("route", call) as span:
            if span.recorded:
                for key, value in self._attributes(asked, call).items():
                    span.set(key, value)
            trip = self._begin(asked, call, span)
            self._take_found(trip, found)
            outcome = self._finish(trip, found.result, reused=True)
            self._later(self._admission.settle(admitted, outcome.receipt, None))
            return outcome

    async def run(self, asked: Asked, call: Call, owed: NotFound | None = None) -> Outcome:
        """Serve a task; raises Fault.

        `owed`: nothing is looked up, and the answer is stored for this.
        """
        with self._telemetry.span("route", call, attributes=self._attributes(asked, call)) as span:
            trip = self._begin(asked, call, span)
            admitted = await self._admit(trip)
            outcome: Outcome | None = None
            spent: Spent | None = None
            try:
                outcome = await self._answer(trip, owed)
                return outcome
            except BaseException as error:
                spent = _spent(trip, error)
                raise
            finally:
                self._later(
                    self._admission.settle(admitted, outcome.receipt if outcome else None, spent)
                )

    async def _answer(self, trip: Trip, owed: NotFound | None) -> Outcome:
        found = await self._look_up(trip, owed)
        if isinstance(found, Found):
            self._refresh(trip, found.refresh)
            return self._finish(trip, found.result, reused=True)
        result: inference_pb2.TaskResult | None = None
        try:
            computed = await self.attempts.compute(trip)
            result = computed.result
            assert result is not None
            return self._finish(trip, result)
        finally:
            self._later(self._recall.store(found.token, result, trip.receipt if result else None))

    async def stream(
        self, asked: Asked, call: Call
    ) -> AsyncGenerator[inference_pb2.GenerateChunk | Outcome, None]:
        """Serve a generate task piece by piece; the last thing yielded is the Outcome.

        A cut stream ends in a Fault, never in silence.
        """
        with self._telemetry.span("route", call, attributes=self._attributes(asked, call)) as span:
            trip = self._begin(asked, call, span)
            admitted = await self._admit(trip)
            outcome: Outcome | None = None
            found: NotFound | None = None
            spent: Spent | None = None
            try:
                followed = 0
                async with aclosing(self._followed(trip)) as chunks:
                    async for chunk in chunks:
                        followed += 1
                        yield chunk
                looked = await self._look_up(trip)
                if isinstance(looked, Found):
                    if not followed:
                        yield _whole(looked.result)
                    self._refresh(trip, looked.refresh)
                    outcome = self._finish(trip, looked.result, reused=True)
                elif followed:
                    found = looked
                    raise unavailable(
                        "the same request, whose answer was followed, has broken off",
                        0.1,
                        "FOLLOWED_BROKE",
                    )
                else:
                    found = looked
                    async with aclosing(self._stream_pieces(trip, admitted, found)) as items:
                        async for item in items:
                            if isinstance(item, Outcome):
                                outcome = item
                            else:
                                yield item
                assert outcome is not None
                yield outcome
            except BaseException as error:
                spent = _spent(trip, error)
                raise
            finally:
                self._later(
                    self._admission.settle(admitted, outcome.receipt if outcome else None, spent)
                )
                self._after_stream(found, outcome)

    def _after_stream(self, found: NotFound | None, outcome: Outcome | None) -> None:
        if found is not None:
            result, receipt = (outcome.result, outcome.receipt) if outcome else (None, None)
            self._later(self._recall.store(found.token, result, receipt))

    def _begin(self, asked: Asked, call: Call, span: Span) -> Trip:
        receipt = common_pb2.Receipt(
            request_id=self._ids.take(),
            trace_id=span.call.traceparent[3:35],
            run_id=call.run_id,
            model=asked.model,
        )
        notes = (*self._notes(), asked.reason) if asked.reason else self._notes()
        if notes:
            receipt.notes.extend(notes)
        return Trip(
            asked,
            call,
            span,
            self._clock.monotonic(),
            receipt,
            spare_models=list(asked.spare_models),
        )

    async def _admit(self, trip: Trip) -> Admitted:
        admitted = await self._admission.admit(trip.span.call, trip.asked.options, trip.asked.work)
        trip.receipt.notes.extend(admitted.notes)
        if admitted.max_output_tokens and trip.asked.work.kind == "generate":
            task = inference_pb2.Task()
            task.CopyFrom(trip.asked.task)
            task.generate.max_tokens = admitted.max_output_tokens
            trip.asked = trip.asked._replace(task=task)
        return admitted

    async def _look_up(self, trip: Trip, owed: NotFound | None = None) -> Found | NotFound:
        """Ask the cache, unless an answer is owed to it, and where it has nothing, shape the task
        for the model.
        """
        asked = trip.asked
        call, request_id = trip.span.call, trip.receipt.request_id
        found = owed or await self._recall.look_up(
            call, asked.options, asked.task, asked.model, request_id
        )
        self._take_found(trip, found)
        if isinstance(found, Found):
            return found
        shaped = await self._shape.shape(
            trip.call, asked.options, asked.task, (asked.model, *trip.spare_models)
        )
        trip.receipt.savings.extend(shaped.savings)
        trip.receipt.notes.extend(shaped.notes)
        if shaped.prefix_share is not None and trip.span.recorded:
            trip.span.set(semantics.PROMPT_PREFIX_SHARE, shaped.prefix_share)
            trip.span.set(semantics.PROMPT_DECISIONS, "\n".join(shaped.decisions))
        if shaped.task is not asked.task:
            trip.as_sent = dict.fromkeys(shaped.not_for, asked.task)
            trip.asked = asked._replace(task=shaped.task)
        return found

    @staticmethod
    def _take_found(trip: Trip, found: Found | NotFound) -> None:
        """What the look-up brings goes into the receipt."""
        receipt = trip.receipt
        if found.notes:
            receipt.notes.extend(found.notes)
        if found.cache is not None:
            receipt.cache.CopyFrom(found.cache)
        if found.savings:
            receipt.savings.extend(found.savings)
        if isinstance(found, Found) and found.model:
            receipt.model = found.model

    def _refresh(self, trip: Trip, owed: NotFound | None) -> None:
        """Fetch the new answer for a stale one that is being served: a call of its own, with its
        own receipt, outside the run.
        """
        if owed is not None:
            call = trip.span.call._replace(
                run_id="", step="", deadline_s=self._clock.monotonic() + REFRESH_S
            )
            self._later(self._refreshed(trip.asked, call, owed))

    async def _refreshed(self, asked: Asked, call: Call, owed: NotFound) -> None:
        try:
            await self.run(asked, call, owed)
        # where it was not admitted nothing was said to the cache; else this says it again, to no
        # effect
        except Fault:
            await finish(self._recall.store(owed.token, None, None))

    async def feedback(self, call: Call, request_id: str, correct: bool, note: str) -> bool:
        """Hand a caller's verdict to the cache; True when an entry was quarantined."""
        return await self._recall.feedback(call.principal, request_id, correct, note)

    def _followed(self, trip: Trip) -> AsyncGenerator[inference_pb2.GenerateChunk, None]:
        asked = trip.asked
        return self._recall.follow_stream(trip.span.call, asked.options, asked.task, asked.model)

    async def _stream_pieces(
        self, trip: Trip, admitted: Admitted, found: NotFound
    ) -> AsyncGenerator[inference_pb2.GenerateChunk | Outcome, None]:
        async with aclosing(self.attempts.stream(trip)) as pieces:
            async for piece in pieces:
                if piece.chunk is not None:
                    trip.said_bytes += len(piece.chunk.delta)
                    await self._admission.extend(admitted, trip.said_bytes // BYTES_A_TOKEN)
                    self._recall.said(found.token, piece.chunk)
                    yield piece.chunk
                if piece.result is not None:
                    yield self._finish(trip, piece.result)

    def _finish(
        self, trip: Trip, result: inference_pb2.TaskResult, *, reused: bool = False
    ) -> Outcome:
        receipt = trip.receipt
        receipt.revision, receipt.compute_ms = result.revision, result.compute_ms
        receipt.usage.CopyFrom(result.usage)
        bill(receipt, result.usage, self._prices(), reused=reused)
        receipt.total_ms = (self._clock.monotonic() - trip.began_s) * 1e3
        trip.span.set(semantics.INPUT_TOKENS, result.usage.input_tokens)
        trip.span.set(semantics.OUTPUT_TOKENS, result.usage.output_tokens)
        trip.span.set(semantics.CACHE_OUTCOME, OUTCOMES[receipt.cache.outcome])
        if trip.span.recorded and not reused and result.HasField("classify"):
            trip.span.set(semantics.CONFIDENCE, confidence(result))
        return Outcome(result, receipt)

    @staticmethod
    def _attributes(asked: Asked, call: Call) -> Own:
        return {
            semantics.REQUEST_MODEL: asked.model,
            semantics.OPERATION: OPERATIONS.get(asked.work.kind, "invoke"),
            semantics.TENANT: call.principal.organisation,
            semantics.RUN: call.run_id,
            semantics.STEP: call.step,
            semantics.PRIORITY: call.priority,
        }

    def _later(self, work: Later) -> None:
        """Do what follows the answer; a failure there is the stage's own to report and never the
        caller's.
        """
        if work is None:
            return
        task = asyncio.get_running_loop().create_task(work)
        self._after.add(task)
        task.add_done_callback(self._after.discard)

    async def drained(self) -> None:
        """Wait until everything that follows answers is done."""
        while self._after:
            await asyncio.gather(*self._after, return_exceptions=True)


def _spent(trip: Trip, error: BaseException) -> Spent | None:
    """What a broken call has cost: nothing when an instance refused it; its input and what it said
    when it was cut, cancelled or late.
    """
    cut = trip.said_bytes > 0
    left = isinstance(error, (asyncio.CancelledError, GeneratorExit)) or (
        isinstance(error, Fault)
        and error.code in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
    )
    if not cut and not (left and trip.attempts):
        return None
    return Spent(trip.asked.model, trip.asked.work.input_tokens, trip.said_bytes // BYTES_A_TOKEN)


def _whole(result: inference_pb2.TaskResult) -> inference_pb2.GenerateChunk:
    """A reused answer as one chunk."""
    answer = result.generate
    return inference_pb2.GenerateChunk(
        delta=answer.message.content,
        tool_calls=answer.message.tool_calls,
        finish_reason=answer.finish_reason,
    )
