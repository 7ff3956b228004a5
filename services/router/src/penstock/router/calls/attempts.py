"""Getting a call computed: pick an instance, try it, and when it fails or dawdles try another
within the budgets.

Ownership: an in-flight count belongs to the attempt that raised it, and falls in the same attempt's
`finally`.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import aclosing
from random import Random

import grpc
from penstock.api.batcher.v1 import batcher_pb2
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.otel import attributes as semantics
from penstock.otel.telemetry import Telemetry
from penstock.router.calls.affinity import Affinity
from penstock.router.calls.call_state import Trip
from penstock.router.calls.hedging import race
from penstock.router.calls.resuming import RESUMES, Delivered, continued, joined
from penstock.router.instances.backends import Backends, Computed
from penstock.router.instances.registry import Registry
from penstock.router.routing import instance_choice as policy
from penstock.router.routing.fleet import Fleet, Member, Outcome
from penstock.router.routing.instance_choice import Budget, Pick
from penstock.router.routing.late_binding_queue import Holding
from penstock.router.routing.spot_avoidance import risky
from penstock.router.routing.strategies import (
    STRATEGIES,
    Ask,
    InsteadOfLateBinding,
    LateBinding,
    Strategy,
)
from penstock.router.settings import RouterSettings
from penstock.rpc.call import Call
from penstock.rpc.reasons import Reason
from penstock.rpc.errors import Fault, exhausted, failed_precondition, unavailable
from penstock.service.clock import Clock

PICKS_KEPT = 4096
RETRIES_SAVED = 32.0
"""Retries that a calm router has saved for the moment an instance dies with requests in flight."""
REPEATABLE = frozenset({"embed", "classify", "infer"})
"""Tasks that may be computed twice without anybody noticing."""
GONE = frozenset({grpc.StatusCode.UNAVAILABLE})
SICK = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS})
"""Codes that speak against the instance; others speak of the request or of time."""
URGENCY: dict[int, float] = {
    common_pb2.PRIORITY_LOW: 0.0,
    common_pb2.PRIORITY_NORMAL: 1 / 3,
    common_pb2.PRIORITY_HIGH: 2 / 3,
}
NO_MODEL, CANNOT_SERVE = "NO_MODEL", "CANNOT_SERVE"
RATE_LIMITED = "UPSTREAM_RATE_LIMITED"
"""Reason of a call that an instance's upstream refused with 429: it counts against the instance,
and others are tried.
"""
NOT_BEGUN = frozenset({"QUEUE_FULL", RATE_LIMITED})
"""Reasons of calls that an instance's queue or its upstream turned away before any work: another
may have room.
"""
UNSENT = frozenset({NO_MODEL, CANNOT_SERVE, "NO_INSTANCE", "SHED"})
"""Reasons of calls that no instance was given: another try at once would end the same way."""
CANNOT = "lacks "
"""How the reason begins when an instance is not able to serve a request at all."""


class Attempts:
    """Chooses instances and tries them. Keeps the latest picks for whoever asks why."""

    def __init__(
        self,
        settings: RouterSettings,
        registry: Registry,
        backends: Backends,
        clock: Clock,
        telemetry: Telemetry,
        rng: Random,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._backends = backends
        self._clock = clock
        self._rng = rng
        self._strategy: Strategy = STRATEGIES[settings.strategy]()
        self._otherwise: Strategy = InsteadOfLateBinding()
        self._retries = Budget(settings.retry_budget, RETRIES_SAVED)
        self._hedges = Budget(settings.hedge_budget)
        self._holding = Holding()
        self._affinity = Affinity()
        self._telemetry = telemetry
        self.picks: OrderedDict[str, Pick] = OrderedDict()
        self.branches: dict[str, int] = {}
        self._picks_counter = telemetry.counter(
            "penstock.router.picks", "{pick}", "Picks by branch"
        )
        self._attempts_counter = telemetry.counter(
            "penstock.router.attempts", "{attempt}", "Attempts by outcome"
        )

    async def compute(self, trip: Trip) -> Computed:
        """Try one instance after the other while that is safe and the retry budget lasts; raises
        Fault.
        """
        self._retries.earn()
        self._hedges.earn()
        while True:
            try:
                fleet, pick, member = await self._choose(trip)
                return await self._hedged(trip, fleet, pick, member)
            except Fault as fault:
                if not self._may_retry(trip, fault) and not self._fall_back(trip, fault):
                    raise

    async def stream(self, trip: Trip) -> AsyncGenerator[Computed, None]:
        """As `compute`, piece by piece.

        Once a piece has left, another instance goes on where one can, else the caller hears of it.
        """
        self._retries.earn()
        trip.streams, task, delivered = True, trip.asked.task, Delivered()
        while True:
            fleet, pick, member = await self._choose_or_fall_back(trip)
            resumed = delivered.text
            began = self._begin(trip, fleet, member)
            outcome = Outcome.CANCELLED
            try:
                pieces = self._backends.stream(
                    self._registry.registered[member.id],
                    self._request(trip, member.id),
                    self._try_call(trip),
                )
                async with aclosing(pieces) as open_pieces:
                    async for piece in open_pieces:
                        if piece.chunk is not None:
                            delivered.take(piece.chunk)
                        if piece.result is not None:
                            outcome = Outcome.SUCCESS
                            self._note(trip, pick, member, piece)
                        yield (
                            joined(piece, resumed, trip.asked.work.input_tokens)
                            if resumed
                            else piece
                        )
                if outcome is not Outcome.SUCCESS:
                    raise unavailable("the answer was cut before its end", reason=Reason.STREAM_CUT)
                return
            except Fault as fault:
                outcome = self._blame(fault)
                if delivered.begun:
                    self._resume(trip, fault, delivered, task)
                elif not (self._may_retry(trip, fault) or self._fall_back(trip, fault)):
                    raise
            finally:
                self._end(trip, fleet, member, outcome, began)

    def forget(self, instance_id: str) -> None:
        """The instance has gone for good."""
        self._affinity.forget(instance_id)

    def _resume(
        self, trip: Trip, fault: Fault, delivered: Delivered, task: inference_pb2.Task
    ) -> None:
        """Let the next try say the rest of an answer that was cut; raises the fault where no
        instance can go on with it.
        """
        fleet, registered = self._registry.fleets.get(trip.asked.model), self._registry.registered
        able = fleet is not None and any(
            RESUMES in registered[member.id].capabilities and member.id not in trip.tried
            for member in fleet.members
        )
        if not (able and delivered.whole and fault.code in GONE and self._may_retry(trip, fault)):
            raise fault
        text, options = delivered.text, router_pb2.CallOptions()
        options.CopyFrom(trip.asked.options)
        if RESUMES not in options.required_capabilities:
            options.required_capabilities.append(RESUMES)
        trip.asked = trip.asked._replace(options=options, task=continued(task, text))
        trip.receipt.notes.append(
            f"resumed after {len(text)} characters: {fault.reason or fault.code.name}"
        )
        self._count("resumed")

    def fleet_of(self, model: str) -> Fleet:
        """The instances of a model.

        Raises:
            Fault: NOT_FOUND when there is none.
        """
        fleet = self._registry.fleets.get(model)
        if fleet is None:
            raise Fault(Reason.NOT_FOUND, f"options.model: no instance serves {model!r}",
                reason=NO_MODEL,
                field="options.model",
            )
        return fleet

    def look(
        self, trip_model: str, ask: Ask, needs: frozenset[str], tokens: int, rng: Random
    ) -> Pick:
        """A pick that is not made."""
        fleet = self.fleet_of(trip_model)
        fits = self._fits(trip_model, needs, tokens)
        return policy.choose(
            fleet, self._strategy_of(fleet), ask, self._clock.monotonic(), rng, fits=fits
        )

    async def _choose_or_fall_back(self, trip: Trip) -> tuple[Fleet, Pick, Member]:
        while True:
            try:
                return await self._choose(trip)
            except Fault as fault:
                if not self._fall_back(trip, fault):
                    raise

    def _fall_back(self, trip: Trip, fault: Fault) -> bool:
        """Go on with the next model of the chain, where this one cannot serve and there is one
        left.
        """
        cannot = fault.code in GONE or fault.reason in (
            NO_MODEL,
            "SHED",
            CANNOT_SERVE,
            RATE_LIMITED,
        )
        if (
            not cannot
            or not trip.spare_models
            or trip.call.remaining_s(self._clock.monotonic()) <= 0
        ):
            return False
        failed, following = trip.asked.model, trip.spare_models.pop(0)
        trip.go_on_with(following)
        trip.tried.clear()
        trip.receipt.notes.append(
            f"fallback from {failed} to {following}: {fault.reason or fault.code.name}"
        )
        self._count("fallback model")
        return True

    async def _choose(self, trip: Trip) -> tuple[Fleet, Pick, Member]:
        asked = trip.asked
        if asked.model not in self._registry.fleets and not trip.spare_models:
            await self._wait_for_first(trip)
        fleet, now = self.fleet_of(asked.model), self._clock.monotonic()
        pick = self._pick(trip, fleet, now)
        if pick.held:
            fleet, pick = await self._held(trip, fleet)
            now = self._clock.monotonic()
        if pick.member is None:
            gone = not self._registry.serving(asked.model) and not trip.spare_models
            if gone and await self._wait_for_first(trip):
                return await self._choose(trip)
            raise self._nobody(asked.model, fleet, pick)
        self._shed_if_too_long(trip, policy.expected_wait_s(pick.member), now)
        trip.tried.add(pick.member.id)
        trip.attempts += 1
        self._affinity.sent(trip, pick.member)
        return fleet, pick, pick.member

    async def _wait_for_first(self, trip: Trip) -> bool:
        """Wait while a scaler starts the first instance of the model; False where none does."""
        came = await self._registry.waiting.wait(trip.asked.model)
        if came:
            trip.receipt.notes.append("waited for the first instance")
        return came

    def _shed_if_too_long(self, trip: Trip, wait_s: float, now: float) -> None:
        limit_s = self._settings.queue_limit_s(trip.call.priority)
        if wait_s and (why := policy.shed(wait_s, trip.call.remaining_s(now), limit_s)):
            self._count("shed")
            raise exhausted(f"shed: {why}", reason=Reason.SHED, retry_after_s=min(wait_s, 60.0))

    async def _held(self, trip: Trip, fleet: Fleet) -> tuple[Fleet, Pick]:
        """Late binding: hold the call until an instance has room for it or none can serve it."""
        model, rank = trip.asked.model, self._holding.rank(trip.call.priority)
        self._shed_if_too_long(
            trip, policy.held_wait_s(fleet, self._holding.count(model)), self._clock.monotonic()
        )
        try:
            while True:
                await self._holding.wait(model, rank)
                fleet = self.fleet_of(model)
                pick = self._pick(trip, fleet, self._clock.monotonic())
                if not pick.held:
                    return fleet, pick
                if trip.tried or trip.asked.options.required_capabilities:
                    self._holding.wake(
                        model, after=rank
                    )  # what is free is not for this call, but may be for another
        finally:
            self._holding.wake(
                model
                # there may be room for more than one, and where there is none this one looked in
                # vain
            )

    def _pick(self, trip: Trip, fleet: Fleet, now: float) -> Pick:
        asked = trip.asked
        needs = frozenset(asked.options.required_capabilities)
        unsafe: frozenset[str] = frozenset()
        if trip.streams:
            unsafe = risky(fleet, self._registry.registered, self._registry.since, now, trip.tried)
        fits = self._fits(
            asked.model,
            needs,
            asked.work.input_tokens if asked.work.kind == "generate" else 0,
            unsafe,
        )
        ask = Ask(
            asked.work.input_tokens,
            URGENCY.get(trip.call.priority, 1.0),
            self._affinity.sizes(trip, fleet),
        )
        pick = policy.choose(
            fleet, self._strategy_of(fleet), ask, now, self._rng, without=trip.tried, fits=fits
        )
        self._count(pick.branch)
        self.picks[trip.receipt.request_id] = pick
        if len(self.picks) > PICKS_KEPT:
            self.picks.popitem(last=False)
        return pick

    def _strategy_of(self, fleet: Fleet) -> Strategy:
        """The strategy that is set, or the default where late binding does not fit."""
        strategy = self._strategy
        return (
            self._otherwise
            if isinstance(strategy, LateBinding) and not strategy.fits(fleet)
            else strategy
        )

    def _fits(
        self, model: str, needs: frozenset[str], tokens: int, unsafe: frozenset[str] = frozenset()
    ) -> policy.Fits | None:
        if not (needs or tokens or unsafe):
            return None
        registered = self._registry.registered

        def fits(member_id: str) -> str:
            if member_id in unsafe:
                return "spot: a safer instance is free for this stream"
            instance = registered[member_id]
            if missing := needs.difference(instance.capabilities):
                return CANNOT + ", ".join(sorted(missing))
            longest = _window(instance, model)
            return f"{CANNOT}room for {tokens} tokens" if longest and tokens > longest else ""

        return fits

    def _nobody(self, model: str, fleet: Fleet, pick: Pick) -> Fault:
        if pick.left_out and all(why.startswith(CANNOT) for _, why in pick.left_out):
            fault = failed_precondition(
                "options", f"every instance of {model!r} {pick.left_out[0][1]}"
            )
            fault.reason = CANNOT_SERVE
            return fault
        why = "; ".join(f"{name}: {reason}" for name, reason in pick.left_out[:4]) or pick.branch
        return unavailable(
            f"no instance can serve {model!r} now ({why})",
            retry_after_s=pick.retry_after_s,
            reason=Reason.NO_INSTANCE,
        )

    async def _hedged(self, trip: Trip, fleet: Fleet, pick: Pick, member: Member) -> Computed:
        first = self._attempt(trip, fleet, pick, member)
        repeatable = trip.asked.work.kind in REPEATABLE
        if (
            not self._hedges.share
            or not repeatable
            or len(fleet.members) < 2
            or math.isinf(fleet.p95_s)
        ):
            return await first
        return await race(first, fleet.p95_s, lambda: self._second(trip, fleet))

    def _second(self, trip: Trip, fleet: Fleet) -> asyncio.Task[Computed] | None:
        """A hedge on another instance, when one is ready and the budget allows."""
        if self._hedges.tokens < 1.0:
            return None
        pick = self._pick(trip, fleet, self._clock.monotonic())
        if (
            pick.member is None
            or pick.member.own >= pick.member.concurrency
            or not self._hedges.spend()
        ):
            return None
        trip.tried.add(pick.member.id)
        trip.attempts += 1
        trip.receipt.route.hedged = True
        self._count("hedge")
        return asyncio.get_running_loop().create_task(self._attempt(trip, fleet, pick, pick.member))

    async def _attempt(self, trip: Trip, fleet: Fleet, pick: Pick, member: Member) -> Computed:
        began = self._begin(trip, fleet, member)
        outcome = Outcome.CANCELLED
        try:
            computed = await self._backends.compute(
                self._registry.registered[member.id],
                self._request(trip, member.id),
                self._try_call(trip),
            )
            outcome = Outcome.SUCCESS
            if isinstance(self._strategy, LateBinding):
                self._learn_round_trip(fleet, computed, began)
        except Fault as fault:
            outcome = self._blame(fault)
            raise
        finally:
            self._end(trip, fleet, member, outcome, began)
        self._note(trip, pick, member, computed)
        return computed

    def _learn_round_trip(self, fleet: Fleet, computed: Computed, began: float) -> None:
        """An answer that does not say how long it was computed says nothing of its way."""
        if computed.result is None or not computed.result.compute_ms:
            return
        inside_ms = computed.result.compute_ms + (
            computed.batch.queued_ms if computed.batch is not None else 0.0
        )
        fleet.went(self._clock.monotonic() - began - inside_ms / 1e3)

    def _begin(self, trip: Trip, fleet: Fleet, member: Member) -> float:
        now = self._clock.monotonic()
        fleet.begin(member, now)
        return now

    def _end(
        self, trip: Trip, fleet: Fleet, member: Member, outcome: Outcome, began: float
    ) -> None:
        now = self._clock.monotonic()
        fleet.end(member, now, outcome, now - began)
        self._holding.wake(trip.asked.model)

    def _try_call(self, trip: Trip) -> Call:
        """The call of one try: it ends with the whole call, or sooner where a limit for each try is
        set.
        """
        call = trip.span.call
        if not self._settings.try_deadline_ms:
            return call
        ends_s = self._clock.monotonic() + self._settings.try_deadline_ms / 1e3
        return call._replace(deadline_s=min(call.deadline_s, ends_s))

    @staticmethod
    def _request(trip: Trip, instance_id: str) -> batcher_pb2.ComputeRequest:
        asked = trip.asked
        return batcher_pb2.ComputeRequest(
            instance_id=instance_id,
            model=asked.model,
            task=asked.task,
            estimated_tokens=asked.work.input_tokens,
        )

    def _blame(self, fault: Fault) -> Outcome:
        self._attempts_counter.add(1, {"code": fault.code.name})
        if fault.code in GONE and fault.reason != "NOT_ATTACHED":
            return Outcome.GONE
        timed_out = (
            fault.code is grpc.StatusCode.DEADLINE_EXCEEDED and self._settings.try_deadline_ms
        )
        sick = fault.code in SICK or timed_out or fault.reason == RATE_LIMITED
        return Outcome.SICK if sick else Outcome.REFUSED

    def _may_retry(self, trip: Trip, fault: Fault) -> bool:
        fleet = self._registry.fleets.get(trip.asked.model)
        if fleet is None or fault.reason in UNSENT:
            return False
        if fault.reason == "NOT_ATTACHED" and trip.attempts < 2 * self._settings.max_attempts:
            # The batcher was started again and has forgotten its instances: the next try attaches
            # them.
            trip.tried.clear()
            return True
        timed_out = (
            fault.code is grpc.StatusCode.DEADLINE_EXCEEDED and trip.asked.work.kind in REPEATABLE
        )
        if (
            not (fault.code in GONE or timed_out or fault.reason in NOT_BEGUN)
            or len(trip.tried) >= self._settings.max_attempts
        ):
            return False
        others = any(
            not (member.lost or member.leaving or member.id in trip.tried)
            for member in fleet.members
        )
        return (
            others and trip.call.remaining_s(self._clock.monotonic()) > 0 and self._retries.spend()
        )

    def _count(self, branch: str) -> None:
        self.branches[branch] = self.branches.get(branch, 0) + 1
        self._picks_counter.add(1, {"branch": branch})

    def _note(self, trip: Trip, pick: Pick, member: Member, computed: Computed) -> None:
        load = computed.load
        if load is not None:
            seen = self._clock.monotonic() - load.age_ms / 1e3
            member.report(load.in_flight, load.concurrency, load.utilization, seen)
        trip.receipt.model = trip.asked.model
        route = trip.receipt.route
        route.instance_id, route.reason = member.id, f"{self._settings.strategy}: {pick.branch}"
        route.score, route.attempts, route.candidates = (
            pick.score,
            trip.attempts,
            len(pick.rows) + len(pick.left_out),
        )
        if computed.batch is not None:
            trip.receipt.batch.CopyFrom(computed.batch)
        trip.span.set(semantics.INSTANCE, member.id)
        trip.span.set(semantics.ROUTE_REASON, route.reason)
        trip.span.set(semantics.ROUTE_SCORE, pick.score)
        trip.span.set(semantics.ATTEMPTS, trip.attempts)
        if trip.span.recorded:
            registered = self._registry.registered.get(member.id)
            if registered is not None and (window := _window(registered, trip.asked.model)):
                trip.span.set(semantics.CONTEXT_WINDOW, window)


def _window(instance: router_pb2.Instance, model: str) -> int:
    """Tokens that an instance's model takes; 0 where it does not say."""
    return next((item.max_input_tokens for item in instance.models if item.name == model), 0)
