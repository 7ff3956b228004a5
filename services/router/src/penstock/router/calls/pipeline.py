"""A call's way: admit → look up → shape → compute, and the receipt on the way back.

Storing and settling follow the answer. Ownership: what was admitted is settled exactly once, after
the answer has left, and what a Miss owes the cache is given exactly once. An answer that others may
follow is computed by a task of its own; where its first caller leaves, those who follow own it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import aclosing

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.otel import attributes as names
from penstock.otel.telemetry import Telemetry
from penstock.prices.prices import Prices
from penstock.router.calls.attempts import Attempts, Served
from penstock.router.calls.handover import Handover
from penstock.router.calls.holds import Holds
from penstock.router.calls.miss_times import MissRoute, MissTimes
from penstock.router.calls.state import (
    CallState,
    Outcome,
    ReceiptBuilder,
    said_bytes,
    spent_at_end,
)
from penstock.router.requests.resolved import ResolvedRequest
from penstock.router.stages import (
    AdmissionStage,
    Bypass,
    Deferred,
    Following,
    Hit,
    LookUp,
    LookUpStage,
    Losses,
    Miss,
    ShapeStage,
    Spent,
    perform,
)
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault, internal, unavailable
from penstock.rpc.reasons import Reason
from penstock.rpc.spans import Own, Span, serve_under, span_of
from penstock.service.background import Background
from penstock.service.clock import Clock
from penstock.service.current import Current
from penstock.tasks.kind import BYTES_PER_TOKEN

REFRESH_S = 60.0
"""Longest time that fetching the new answer for a stale one may take."""


class Pipeline:
    """Runs calls. Owner of what follows an answer until it is done."""

    def __init__(
        self,
        attempts: Attempts,
        holds: Holds,
        stages: tuple[AdmissionStage, LookUpStage, ShapeStage],
        clock: Clock,
        telemetry: Telemetry,
        prices: Current[Prices],
        after: Background,
        losses: Sequence[Losses] = (),
    ) -> None:
        self._attempts = attempts
        self._holds = holds
        self._handover = Handover(holds, after)
        self._admission, self._lookup, self._shape = stages
        self._clock = clock
        self._telemetry = telemetry
        self._prices = prices
        self._losses = losses
        self._miss_times = MissTimes()
        self._after = after

    def from_memory(self, request: ResolvedRequest, call: Call) -> Outcome | None:
        """Serve a request without waiting for anything, from an answer in this process under a
        lease in hand; None, and nothing done, where `run` must be asked. Raises Fault.
        """
        hit = self._lookup.near_hit(call, request)
        admitted = self._admission.admit_now(call, request) if hit is not None else None
        if hit is None or admitted is None:
            return None
        with self._span(request, call) as span:
            state = self._begin(request, call, span)
            outcome = self._reuse(state, hit)
            self._later(self._admission.settle(admitted, outcome.receipt, None))
            return outcome

    async def run(self, request: ResolvedRequest, call: Call, owed: Miss | None = None) -> Outcome:
        """Serve a request; raises Fault.

        `owed`: nothing is looked up, and the answer is stored for this.
        """
        with self._span(request, call) as span:
            state = self._begin(request, call, span)
            await self._holds.admit(state)
            return await self._settled(state, self._answer(state, owed))

    async def _settled(self, state: CallState, answer: Awaitable[Outcome]) -> Outcome:
        """The answer; what is held for it is settled once it is there or has failed, unless those
        who follow it have taken that over.
        """
        outcome: Outcome | None = None
        spent: Spent | None = None
        try:
            outcome = await answer
            return outcome
        except BaseException as error:
            spent = spent_at_end(state, error)
            raise
        finally:
            if not state.handed_over:
                receipt = outcome.receipt if outcome else None
                settling = self._holds.settle(state, receipt, spent)
                if settling is not None and outcome and state.request.job is not None:
                    # A job that has ended is settled, so it is charged before anybody ends it.
                    await asyncio.shield(settling)

    async def _answer(self, state: CallState, owed: Miss | None) -> Outcome:
        found = owed or await self._look_up(state)
        if isinstance(found, Hit):
            return self._reuse(state, found)
        if isinstance(found, Bypass) or found.following is None:
            return await self._computed(state, found)
        computing = asyncio.get_running_loop().create_task(self._computed(state, found))
        is_delivered = False
        try:
            outcome = await asyncio.shield(computing)
            is_delivered = True
            return outcome
        finally:
            if not is_delivered:
                self._handover.left(state, found.following, computing)

    async def _computed(self, state: CallState, found: Miss | Bypass) -> Outcome:
        outcome: Outcome | None = None
        try:
            await self._shape_prompt(state)
            outcome = self._finish(state, await self._attempts.compute(state))
            return outcome
        finally:
            self._store(found, outcome)

    async def stream(
        self, request: ResolvedRequest, call: Call
    ) -> AsyncGenerator[inference_pb2.GenerateChunk | Outcome, None]:
        """Serve a conversation piece by piece; the last thing yielded is the Outcome.

        A stream that is cut ends in a Fault, never in silence.
        """
        with self._span(request, call) as span:
            state = self._begin(request, call, span)
            await self._holds.admit(state)
            outcome: Outcome | None = None
            spent: Spent | None = None
            try:
                async with aclosing(self._stream_answer(state)) as items:
                    async for item in items:
                        if isinstance(item, Outcome):
                            outcome = item
                        yield item
            except BaseException as error:
                spent = spent_at_end(state, error)
                raise
            finally:
                if not state.handed_over:
                    self._holds.settle(state, outcome.receipt if outcome else None, spent)

    async def _stream_answer(
        self, state: CallState
    ) -> AsyncGenerator[inference_pb2.GenerateChunk | Outcome, None]:
        hit, followed = None, False
        chunks = self._lookup.follow_stream(state.span.call, state.request)
        async with aclosing(chunks) as open_chunks:
            async for chunk in open_chunks:
                if isinstance(chunk, Hit):
                    hit = chunk
                else:
                    followed = True
                    yield chunk
        if followed and hit is None:
            message = "the identical request in flight failed; retry"
            raise unavailable(message, retry_after_s=0.1, reason=Reason.FOLLOWED_BROKE)
        found = hit or await self._look_up(state)
        if isinstance(found, Hit):
            if not followed:
                yield found.whole_chunk()
            yield self._reuse(state, found)
            return
        pieces = self._fetched(state, found)
        if isinstance(found, Miss) and found.following is not None:
            pieces = self._fetched_for_all(state, found, found.following)
        async with aclosing(pieces) as items:
            async for item in items:
                yield item

    async def _fetched(
        self, state: CallState, found: Miss | Bypass
    ) -> AsyncGenerator[inference_pb2.GenerateChunk | Outcome, None]:
        """The pieces of an answer that is this caller's alone, at the pace of its reading."""
        outcome: Outcome | None = None
        try:
            await self._shape_prompt(state)
            async with aclosing(self._pieces(state)) as items:
                async for item in items:
                    if isinstance(item, Outcome):
                        outcome = item
                    yield item
        finally:
            self._store(found, outcome)

    async def _fetched_for_all(
        self, state: CallState, found: Miss, following: Following
    ) -> AsyncGenerator[inference_pb2.GenerateChunk | Outcome, None]:
        """The pieces of an answer that others may follow: it is fetched beside its first caller,
        who reads as they do and may leave before them.
        """
        fetching = asyncio.get_running_loop().create_task(self._fetch(state, found))
        is_delivered = False
        try:
            async with aclosing(following.chunks()) as chunks:
                async for chunk in chunks:
                    yield chunk
            outcome = await asyncio.shield(fetching)
            is_delivered = True
            yield outcome
        finally:
            if not is_delivered:
                self._handover.left(state, following, fetching)

    async def _fetch(self, state: CallState, found: Miss) -> Outcome:
        """Publish the pieces of an answer as they come; its outcome."""
        outcome: Outcome | None = None
        async with aclosing(self._fetched(state, found)) as items:
            async for item in items:
                if isinstance(item, Outcome):
                    outcome = item
                else:
                    self._lookup.publish(found.ticket, item)
        if outcome is None:
            raise internal("a stream ended without an outcome")
        return outcome

    async def _pieces(
        self, state: CallState
    ) -> AsyncGenerator[inference_pb2.GenerateChunk | Outcome, None]:
        async with aclosing(self._attempts.stream(state)) as pieces:
            async for piece in pieces:
                if piece.chunk is not None:
                    state.said_bytes += said_bytes(piece.chunk)
                    await self._holds.extend(state, state.said_bytes // BYTES_PER_TOKEN)
                    yield piece.chunk
                if piece.result is not None:
                    yield self._finish(state, piece)

    def _span(self, request: ResolvedRequest, call: Call) -> Span:
        attributes: Own = {
            names.REQUEST_MODEL: request.model,
            names.OPERATION: request.kind.operation,
        }
        return span_of(self._telemetry, "route", call, attributes)

    def _begin(self, request: ResolvedRequest, call: Call, span: Span) -> CallState:
        trace_id = span.call.traceparent[3:35]
        receipt = ReceiptBuilder(secrets.token_hex(16), trace_id, call.run_id, request.model)
        for losses in self._losses:
            receipt.note(*losses.notes())
        if request.model_note:
            receipt.note(request.model_note)
        spare = list(request.spare_models)
        return CallState(request, call, span, self._clock.monotonic(), receipt, spare)

    async def _look_up(self, state: CallState) -> LookUp:
        found = await self._lookup.look_up(state.span.call, state.request, state.receipt.request_id)
        if not isinstance(found, Hit):
            state.receipt.looked_up(found)
        return found

    async def _shape_prompt(self, state: CallState) -> None:
        request = state.request
        if not request.kind.conversational:
            return
        models = (request.model, *state.spare_models)
        shaped = await self._shape.shape(state.call, request, models)
        if shaped is None:
            return
        state.receipt.shaped(shaped)
        if shaped.prompt is not None and state.span.recorded:
            state.span.set(names.PROMPT_PREFIX_SHARE, shaped.prompt.share)
            state.span.set(names.PROMPT_DECISIONS, "\n".join(shaped.decisions))
        if shaped.task is not request.task:
            state.unshaped, state.unshaped_for = request.task, shaped.not_for
            state.request = request.with_task(shaped.task)

    def _reuse(self, state: CallState, hit: Hit) -> Outcome:
        """Serve an answer that is there; a new one for a stale one is fetched afterwards."""
        state.receipt.looked_up(hit)
        if state.request.kind.conversational and not hit.model:
            state.receipt.beside(self._shape.reused(state.call, state.request))
        if hit.refresh is not None:
            ends_s = self._clock.monotonic() + REFRESH_S
            call = state.span.call._replace(run_id="", step="", deadline_s=ends_s)
            request = state.request._replace(job=None)
            self._later(self._refresh(request, call, Miss(hit.refresh)))
        return self._finish(state, Served(hit.result))

    async def _refresh(self, request: ResolvedRequest, call: Call, owed: Miss) -> None:
        """Fetch a new answer for a stale one: a call of its own, with its own receipt, outside the
        run.
        """
        serve_under(None)
        try:
            await self.run(request, call, owed)
        except Fault:
            # Where the call was not admitted, nothing was said to the cache yet; to say it twice
            # has no effect.
            await perform(self._lookup.store(owed.ticket, None, None))

    def _finish(self, state: CallState, served: Served) -> Outcome:
        """The outcome of an answer that was computed or, without a route, reused."""
        result, span = served.result, state.span
        if result is None:
            raise internal("an answer ended without a result")
        total_ms = (self._clock.monotonic() - state.began_s) * 1e3
        receipt = state.receipt.finished(
            result, self._prices.value, total_ms, served.route, served.batch
        )
        self._compare_times(state.request, receipt, reused=served.route is None)
        span.receipt(receipt)
        if span.recorded and served.route is not None:
            confidence = state.request.kind.confidence(result)
            if confidence is not None:
                span.set(names.CONFIDENCE, confidence)
        return Outcome(result, receipt)

    def _compare_times(
        self, request: ResolvedRequest, receipt: common_pb2.Receipt, *, reused: bool
    ) -> None:
        """Say what a reused answer saved in time; a computed one saves none, whatever its look-up
        took, which is part of its way.
        """
        tokens = receipt.usage.input_tokens + receipt.usage.output_tokens
        route = MissRoute.of(receipt.model, request.kind.name, tokens)
        saved_ms = self._miss_times.saved_ms(route, receipt.total_ms) if reused else 0.0
        if not reused:
            self._miss_times.add(route, receipt.total_ms)
        for saving in receipt.savings:
            saving.saved_ms = saved_ms

    def _store(self, found: Miss | Bypass, outcome: Outcome | None) -> None:
        """Hand the cache the answer that it is owed, or say that none came."""
        if isinstance(found, Miss):
            result, receipt = outcome or (None, None)
            self._later(self._lookup.store(found.ticket, result, receipt))

    def _later(self, deferred: Deferred) -> asyncio.Task[None] | None:
        """Do what follows the answer; a failure there is the stage's to report, not the
        caller's.
        """
        return self._after.start(deferred) if deferred is not None else None

    async def feedback(self, call: Call, request_id: str, correct: bool, note: str) -> bool:
        """Hand a caller's verdict to the cache; True when an entry was quarantined."""
        return await self._lookup.feedback(call.principal, request_id, correct, note)

    async def drained(self) -> None:
        """Wait until everything that follows answers is done."""
        await self._after.finished()
