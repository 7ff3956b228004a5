"""Getting a call computed: choose an instance, try it, and when the try fails or is slow try
another within the budgets.

An in-flight count belongs to the try that raised it, and falls in the same try's `finally`.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import NamedTuple

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.otel import attributes as names
from penstock.otel.telemetry import Telemetry
from penstock.router.calls.hedging import Hedge, race
from penstock.router.calls.holds import Holds
from penstock.router.calls.resuming import RESUMES, Delivered, continued, joined
from penstock.router.calls.retries import Means, Step, next_step, spare_models_after
from penstock.router.calls.selection import Selection, Target
from penstock.router.calls.state import CallState, Route, cause_of, spent_by
from penstock.router.instances.backends import Backends, Computed
from penstock.router.instances.registry import Registry
from penstock.router.routing.choice import ExtrasBudget
from penstock.router.routing.fleet import Member
from penstock.router.routing.needs import context_window
from penstock.router.routing.strategy import Answer
from penstock.router.settings import RouterSettings
from penstock.router.stages import Spent
from penstock.rpc.call import NORMAL, Call
from penstock.rpc.errors import Fault, released, unavailable
from penstock.rpc.reasons import Reason, Verdict
from penstock.service.clock import Clock

log = logging.getLogger(__name__)

RETRIES_SAVED = 32.0
"""Retries that a calm router has saved for the moment an instance dies with requests in flight."""
RETRIES = (Step.RETRY_HERE, Step.RETRY_ELSEWHERE)


class Served(NamedTuple):
    """An answer and how it came about; of a stream, one piece of it, the last with the result."""

    result: inference_pb2.TaskResult | None
    route: Route | None = None
    batch: common_pb2.BatchReceipt | None = None
    chunk: inference_pb2.GenerateChunk | None = None


class Attempts:
    """Tries instances. Owns the budgets of retries and hedges."""

    def __init__(
        self,
        settings: RouterSettings,
        registry: Registry,
        backends: Backends,
        selection: Selection,
        holds: Holds,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._backends = backends
        self._selection = selection
        self._holds = holds
        self._clock = clock
        self._retries = ExtrasBudget(settings.retry_budget, RETRIES_SAVED)
        self._hedges = ExtrasBudget(settings.hedge_budget)
        self._operator_faults = telemetry.counter(
            names.OPERATOR_FAULTS, "{attempt}", "Attempts that failed for the operator to mend"
        )
        self._failures = telemetry.counter(
            "penstock.router.attempts", "{attempt}", "Attempts by outcome"
        )

    async def compute(self, state: CallState) -> Served:
        """Try one instance after the other while that is safe and the retry budget lasts; raises
        Fault.
        """
        self._retries.earn()
        self._hedges.earn()
        while True:
            try:
                target = await self._selection.target(state)
                return await self._hedged(state, target)
            except Fault as fault:
                await self._go_on(state, fault)
                released(fault)  # which knew the try's frames, and with them the request

    async def stream(self, state: CallState) -> AsyncGenerator[Served, None]:
        """As `compute`, piece by piece.

        Once a piece has left, another instance goes on where one can, else the caller hears of it.
        """
        self._retries.earn()
        state.streams, task, delivered = True, state.request.task, Delivered()
        while True:
            resumed = delivered.text
            try:
                target = await self._selection.target(state)
                async with aclosing(self._try_stream(state, target, resumed)) as pieces:
                    async for piece in pieces:
                        if piece.chunk is not None:
                            delivered.add(piece.chunk)
                        yield piece
                return
            except Fault as fault:
                if delivered.begun:
                    await self._resume(state, fault, delivered, task)
                else:
                    await self._go_on(state, fault)
                released(fault)

    async def _try_stream(
        self, state: CallState, target: Target, resumed: str
    ) -> AsyncGenerator[Served, None]:
        """One instance's pieces; `resumed` is what others have said before it."""
        request, member, began = state.request, target.chosen.member, self._begin(state, target)
        done, fault = False, None
        try:
            instance, call = self._registry.registered[member.id], self._try_call(state)
            pieces = self._backends.stream(instance, request, call)
            async with aclosing(pieces) as open_pieces:
                async for piece in open_pieces:
                    route = batch = None
                    if piece.result is not None:
                        done, batch = True, piece.batch
                        route = self._served(state, target, piece)
                        self._learn(target, began, None)
                    whole = piece
                    if resumed:
                        whole = joined(piece, resumed, state.sent_tokens)
                    yield Served(whole.result, route, batch, whole.chunk)
            if not done:
                message = "the answer was cut before its end"
                raise unavailable(message, reason=Reason.STREAM_CUT)
        except Fault as error:
            fault = self._of_try(state, error)
            raise fault from None
        finally:
            self._end(state, target, began, fault, answered=done)
            fault = None

    async def _resume(
        self, state: CallState, fault: Fault, delivered: Delivered, task: inference_pb2.Task
    ) -> None:
        """Let the next try say the rest of an answer that was cut; raises the fault where no
        instance can go on with it.
        """
        fleet = self._registry.fleets.get(state.request.model)
        able = fleet is not None and any(
            RESUMES in self._registry.registered[member.id].capabilities
            and member.id not in state.tried
            for member in fleet.members
        )
        if not (able and delivered.whole and self._next_step(state, fault) in RETRIES):
            raise fault
        self._retries.spend()
        text, options = delivered.text, router_pb2.CallOptions()
        options.CopyFrom(state.request.options)
        if RESUMES not in options.required_capabilities:
            options.required_capabilities.append(RESUMES)
        state.sent_tokens += state.request.estimate.input_tokens
        rest = continued(task, text)
        estimate = state.request.kind.estimate(rest)
        state.request = state.request.with_task(rest)._replace(options=options, estimate=estimate)
        await self._holds.add(state, state.request)
        state.receipt.note(f"resumed after {len(text)} characters: {fault.reason}")
        self._selection.count("resumed")

    async def _go_on(self, state: CallState, fault: Fault) -> None:
        """Prepare the next try; raises the fault where there is none, or the refusal of limits."""
        model, spent = state.request.model, spent_by(state, fault)
        match self._next_step(state, fault):
            case Step.RETRY_HERE:
                state.tried.clear()
            case Step.RETRY_ELSEWHERE:
                self._retries.spend()
            case Step.NEXT_MODEL:
                following = self._spare_models(state, fault)[0]
                state.spare_models = state.spare_models[state.spare_models.index(following) + 1 :]
                state.go_on_with(following, fault)
                self._selection.count("fallback model")
            case Step.GIVE_UP:
                raise _told(state, fault)
        if spent is not None or state.request.model != model:
            await self._holds.renew(state, spent)

    def _spare_models(self, state: CallState, fault: Fault) -> Sequence[str]:
        window_of = self._selection.window_of
        return spare_models_after(
            fault.consequences, state.request.model, state.spare_models, window_of
        )

    def _next_step(self, state: CallState, fault: Fault) -> Step:
        means = Means(
            repeatable=state.request.kind.repeatable,
            attempts=state.attempts,
            instances_tried=len(state.tried),
            max_instances=self._settings.max_attempts,
            others=self._selection.may_try_another(state),
            time_left=state.call.remaining_s(self._clock.monotonic()) > 0,
            retries_left=self._retries.saved >= 1.0,
            spare_models=bool(self._spare_models(state, fault)),
        )
        return next_step(fault.consequences, means)

    async def _hedged(self, state: CallState, target: Target) -> Served:
        first, fleet = self._try(state, target), target.fleet
        may_hedge = self._hedges.share and state.request.kind.repeatable
        if not may_hedge or len(fleet.members) < 2 or math.isinf(fleet.p95_s):
            return await first
        hedge: Hedge[Served] = Hedge()
        try:
            watched = hedge.watched(first)
            return await race(watched, fleet.p95_s, lambda: self._second(state, hedge))
        finally:
            self._settle_hedge(state, hedge)

    def _settle_hedge(self, state: CallState, hedge: Hedge[Served]) -> None:
        """Settle the hold of the try that was not needed, and keep the other one's."""
        if hedge.admitted is not None and hedge.won:
            self._holds.took(state, hedge.admitted, _spent_in_vain(state, hedge.first_error))
        elif hedge.admitted is not None:
            self._holds.let_go(hedge.admitted, _spent_in_vain(state, hedge.second_error))
        hedge.first_error = hedge.second = None

    def _second(self, state: CallState, hedge: Hedge[Served]) -> asyncio.Task[Served] | None:
        """A hedge on another instance, when one is idle and the hedge budget allows."""
        if self._hedges.saved < 1.0:
            return None
        target = self._selection.decide(state)
        if not isinstance(target, Target) or not self._is_idle(target):
            return None
        second = self._admitted_second(state, hedge, target)
        hedge.second = asyncio.get_running_loop().create_task(second)
        return hedge.second

    async def _admitted_second(
        self, state: CallState, hedge: Hedge[Served], target: Target
    ) -> Served:
        """The second try, once it is admitted. Raises Fault."""
        hedge.admitted = await self._holds.second(state)
        if not self._is_idle(target):
            raise unavailable("the hedge's instance is busy by now", reason=Reason.NO_INSTANCE)
        self._hedges.spend()
        self._selection.give(state, target.chosen.member)
        state.receipt.hedged()
        self._selection.count("hedge")
        return await self._try(state, target)

    def _is_idle(self, target: Target) -> bool:
        """Whether the instance would begin at once."""
        member = target.chosen.member
        return member.id in self._registry.registered and member.own < member.concurrency

    async def _try(self, state: CallState, target: Target) -> Served:
        began, done, fault = self._begin(state, target), False, None
        instance = self._registry.registered[target.chosen.member.id]
        try:
            computed = await self._backends.compute(instance, state.request, self._try_call(state))
            done = True
        except Fault as error:
            fault = self._of_try(state, error)
            raise fault from None
        finally:
            self._end(state, target, began, fault, answered=done)
            fault = None  # which knows this frame, and with it the request: see `released`
        self._learn(target, began, computed)
        return Served(computed.result, self._served(state, target, computed), computed.batch)

    def _learn(self, target: Target, began: float, computed: Computed | None) -> None:
        """Show the strategy an answer. Without `compute_ms` the time away cannot be derived."""
        now, away_s = self._clock.monotonic(), None
        if computed is not None and computed.result is not None and computed.result.compute_ms:
            queued_ms = computed.batch.queued_ms if computed.batch is not None else 0.0
            away_s = now - began - (computed.result.compute_ms + queued_ms) / 1e3
        answer = Answer(now, now - began, away_s)
        target.strategy.answered(target.chosen.member, target.fleet, answer)

    def _begin(self, state: CallState, target: Target) -> float:
        now, member = self._clock.monotonic(), target.chosen.member
        target.fleet.begin(member, now)
        member.own_by_priority[state.call.priority or NORMAL] += 1
        return now

    def _end(
        self, state: CallState, target: Target, began: float, fault: Fault | None, *, answered: bool
    ) -> None:
        now, member, fleet = self._clock.monotonic(), target.chosen.member, target.fleet
        member.own_by_priority[state.call.priority or NORMAL] -= 1
        if answered:
            fleet.succeed(member, now, now - began)
        elif fault is None:
            fleet.fail(member, now, Verdict.NOTHING)
        else:
            verdict = fault.consequences.verdict
            if verdict is Verdict.UNUSABLE:
                labels = {names.INSTANCE: member.id, names.ERROR_TYPE: fault.reason.value}
                self._operator_faults.add(1, labels)
                log.warning("instance %s rests: %s (%s)", member.id, fault.message, fault.reason)
            cause = cause_of(state) if verdict is Verdict.SICK else None
            fleet.fail(member, now, verdict, rest_s=fault.retry_after_s, cause=cause)
        if target.strategy.waits:
            self._selection.room_at(state.request.model)

    def _try_call(self, state: CallState) -> Call:
        """The call of one try: it ends with the whole call, or sooner where a limit for each try is
        set.
        """
        call = state.span.call
        if not self._settings.try_deadline_ms:
            return call
        ends_s = self._clock.monotonic() + self._settings.try_deadline_ms / 1e3
        return call._replace(deadline_s=min(call.deadline_s, ends_s))

    def _of_try(self, state: CallState, fault: Fault) -> Fault:
        """The fault of a failed try, counted. A try whose own time is up is told from a call whose
        time is up.
        """
        may_be_the_try = self._settings.try_deadline_ms and fault.reason is Reason.DEADLINE_EXCEEDED
        if may_be_the_try and state.call.remaining_s(self._clock.monotonic()) > 0:
            fault = Fault(Reason.TRY_TIMED_OUT, fault.message)
        self._failures.add(1, {"code": fault.code.name, "reason": fault.reason.value})
        state.fault = fault
        return fault

    def _served(self, state: CallState, target: Target, computed: Computed) -> Route:
        """Take in what the instance says of its load, and say who served and why."""
        chosen, load = target.chosen, computed.load
        member = chosen.member
        if load is not None:
            seen = self._clock.monotonic() - load.age_ms / 1e3
            member.report(load.in_flight, load.concurrency, load.utilization, seen)
        reason = f"{target.strategy.name}: {chosen.branch}"
        looked_at = len(chosen.candidates) + len(chosen.excluded)
        if state.span.recorded:
            self._record_window(state, member)
        return Route(member.id, reason, chosen.score, state.attempts, looked_at)

    def _record_window(self, state: CallState, member: Member) -> None:
        instance = self._registry.registered.get(member.id)
        window = context_window(instance, state.request.model) if instance is not None else 0
        if window:
            state.span.set(names.CONTEXT_WINDOW, window)


def _spent_in_vain(state: CallState, error: BaseException | None) -> Spent | None:
    """What the one of two tries has cost that was not needed."""
    spent = spent_by(state, error)
    return spent._replace(is_hedge=True) if spent is not None else None


def _told(state: CallState, fault: Fault) -> Fault:
    """What the caller is told: the last try's own fault where there is just nobody left to try."""
    nobody_left = fault.reason is Reason.NO_INSTANCE and state.fault is not None
    return state.fault if nobody_left and state.fault is not None else fault
