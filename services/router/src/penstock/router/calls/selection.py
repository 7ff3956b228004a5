"""From a call to the instance that is to serve it, or to the fault that its caller is told.

The choice itself is `routing.choice`. What may have to be waited for is here: an instance that has
room (late binding), or the first instance of a model that scales from zero.
"""

from __future__ import annotations

from copy import deepcopy
from random import Random
from typing import NamedTuple

from penstock.api.common.v1 import common_pb2
from penstock.otel.telemetry import Telemetry
from penstock.router.calls.affinity import Affinity, SessionKey, prefix_blocks
from penstock.router.calls.state import CallState
from penstock.router.instances.registry import Registry
from penstock.router.requests.resolved import ResolvedRequest
from penstock.router.routing.choice import (
    Chosen,
    Exclusion,
    Fits,
    InstanceChoice,
    NoInstance,
    Queued,
    Why,
    choose,
    closed_because,
    expected_wait_s,
    queue_wait_s,
    too_long,
)
from penstock.router.routing.fleet import Fleet, Member
from penstock.router.routing.late_binding_queue import LateBindingQueue
from penstock.router.routing.needs import Needs, context_window, needs_of, unfit_because
from penstock.router.routing.spot_avoidance import unsafe_for_streams
from penstock.router.routing.strategy import RequestFeatures, Strategy
from penstock.router.settings import RouterSettings
from penstock.rpc.call import NORMAL
from penstock.rpc.errors import Fault, exhausted, failed_precondition, not_found, unavailable
from penstock.rpc.reasons import Reason
from penstock.service.bounded_map import BoundedMap
from penstock.service.clock import Clock

CHOICES_KEPT = 4096
EXCLUSIONS_SHOWN = 4
SHUT = frozenset({Why.LEASE_EXPIRED, Why.DRAINING, Why.EJECTED, Why.RESTING})
"""Why an instance is not worth a second try of a call."""
MAX_RETRY_AFTER_S = 60.0
URGENCY: dict[int, float] = {
    common_pb2.PRIORITY_LOW: 0.0,
    common_pb2.PRIORITY_NORMAL: 1 / 3,
    common_pb2.PRIORITY_HIGH: 2 / 3,
    common_pb2.PRIORITY_CRITICAL: 1.0,
}


class Target(NamedTuple):
    """The instance that a call is given."""

    fleet: Fleet
    strategy: Strategy
    chosen: Chosen


class Selection:
    """Chooses instances for calls, and keeps the latest choices for whoever asks why."""

    def __init__(
        self,
        settings: RouterSettings,
        registry: Registry,
        clock: Clock,
        telemetry: Telemetry,
        rng: Random,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._clock = clock
        self._rng = rng
        self._queue = LateBindingQueue()
        self._affinity = Affinity()
        self._choices: BoundedMap[tuple[str, str], InstanceChoice] = BoundedMap(CHOICES_KEPT)
        """By organisation and request id."""
        self.branches: dict[str, int] = {}
        self._branch_counter = telemetry.counter(
            "penstock.router.picks", "{pick}", "Picks by branch"
        )

    async def target(self, state: CallState) -> Target:
        """The instance that the call is given next; it counts as tried. Raises Fault."""
        if state.request.model not in self._registry.fleets and not state.spare_models:
            await self._wait_for_first(state)
        target = self.decide(state)
        while not isinstance(target, Target):
            fleet, choice = target
            if isinstance(choice, Queued):
                target = await self._wait_for_room(state, fleet)
                continue
            model = state.request.model
            gone = not self._registry.serving(model) and not state.spare_models
            if not (gone and await self._wait_for_first(state)):
                raise _fault_of(state.request, choice)
            target = self.decide(state)
        member = target.chosen.member
        self._refuse_long_wait(state, expected_wait_s(member, state.call.priority or NORMAL))
        self.give(state, member)
        return target

    def decide(self, state: CallState) -> Target | tuple[Fleet, Queued | NoInstance]:
        """Choose now; raises NOT_FOUND where no instance serves the model."""
        request, model = state.request, state.request.model
        fleet, now = self.fleet_of(model), self._clock.monotonic()
        unsafe: frozenset[str] = frozenset()
        if state.streams:
            unsafe = unsafe_for_streams(
                fleet, self._registry.registered, self._registry.since, now, state.tried
            )
        fits = self._fits(model, needs_of(request), unsafe)
        sizes = None
        if request.kind.conversational:
            sizes = self._affinity.sizes(_session_key(state), _blocks_of(state), fleet)
        urgency = URGENCY.get(state.call.priority, 1.0)
        features = RequestFeatures(request.estimate.input_tokens, urgency, sizes)
        strategy = self._registry.strategies[model]
        choice = choose(fleet, strategy, features, now, self._rng, tried=state.tried, fits=fits)
        self.count(choice.branch)
        organisation = state.call.principal.organisation
        self._choices.put((organisation, state.receipt.request_id), choice)
        if isinstance(choice, Chosen):
            return Target(fleet, strategy, choice)
        return fleet, choice

    def give(self, state: CallState, member: Member) -> None:
        """The call goes to this instance."""
        state.tried.add(member.id)
        state.attempts += 1
        state.sent = True
        if state.request.kind.conversational:
            self._affinity.sent(_session_key(state), _blocks_of(state), member)

    def room_at(self, model: str) -> None:
        """An instance of the model has room: whoever waits for that looks again."""
        self._queue.wake(model)

    def waiting(self, model: str) -> int:
        """Calls that wait in the router until an instance of the model has room."""
        return self._queue.count(model)

    def forget(self, instance_id: str) -> None:
        """The instance has gone for good."""
        self._affinity.forget(instance_id)

    def may_try_another(self, state: CallState) -> bool:
        """Whether an instance of the model is left that was not tried and may be given work."""
        fleet, now = self._registry.fleets.get(state.request.model), self._clock.monotonic()
        return fleet is not None and any(
            member.id not in state.tried and closed_because(member, fleet, now) not in SHUT
            for member in fleet.members
        )

    def window_of(self, model: str) -> int:
        """The longest prompt that an instance of the model takes, in tokens; 0 where one does not
        say.
        """
        fleet, registered = self._registry.fleets.get(model), self._registry.registered
        members = fleet.members if fleet is not None else []
        windows = [context_window(registered[member.id], model) for member in members]
        return max(windows) if windows and all(windows) else 0

    def max_output_tokens(self, model: str) -> int:
        """The longest answer that every instance of the model gives, in tokens; 0 where one does
        not say.
        """
        fleet, registered = self._registry.fleets.get(model), self._registry.registered
        limits = [
            next(
                (one.max_output_tokens for one in registered[item.id].models if one.name == model),
                0,
            )
            for item in (fleet.members if fleet is not None else [])
        ]
        return min(limits, default=0)

    def fleet_of(self, model: str) -> Fleet:
        """The instances of a model.

        Raises:
            Fault: NOT_FOUND when there is none; UNAVAILABLE where this router may only not have
                heard of it yet.
        """
        fleet = self._registry.fleets.get(model)
        if fleet is None:
            if not self._registry.is_complete:
                message = f"no instance serves {model!r} as far as this router knows, which has"
                raise unavailable(
                    f"{message} just started; retry", reason=Reason.NO_INSTANCE, retry_after_s=0.5
                )
            raise no_model(model)
        return fleet

    def preview(self, model: str, features: RequestFeatures, needs: Needs) -> InstanceChoice:
        """A choice that nothing follows from. Raises NOT_FOUND as `fleet_of` does."""
        fleet, fits = self.fleet_of(model), self._fits(model, needs)
        strategy = deepcopy(self._registry.strategies[model])
        return choose(fleet, strategy, features, self._clock.monotonic(), Random(0), fits=fits)

    def count(self, branch: str) -> None:
        """Count what was decided, by name."""
        self.branches[branch] = self.branches.get(branch, 0) + 1
        self._branch_counter.add(1, {"branch": branch})

    def recorded(self, organisation: str, request_id: str) -> InstanceChoice | None:
        """The choice for one of the latest requests of an organisation; None where it had none."""
        return self._choices.peek((organisation, request_id))

    async def _wait_for_first(self, state: CallState) -> bool:
        """Wait while a scaler starts the first instance of the model; False where none does."""
        came = await self._registry.cold_starts.wait(state.request.model)
        if came:
            state.receipt.note("waited for the first instance")
        return came

    async def _wait_for_room(
        self, state: CallState, fleet: Fleet
    ) -> Target | tuple[Fleet, Queued | NoInstance]:
        """Late binding: wait until an instance has room for the call, or none can serve it."""
        model, rank = state.request.model, self._queue.rank(state.call.priority)
        self._refuse_long_wait(state, queue_wait_s(fleet, self._queue.ahead(model, rank)))
        try:
            while True:
                await self._queue.wait(model, rank)
                target = self.decide(state)
                if isinstance(target, Target) or not isinstance(target[1], Queued):
                    return target
                if state.tried or state.request.options.required_capabilities:
                    # What is free is not for this call, but may be for another.
                    self._queue.wake(model, after=rank)
        finally:
            # There may be room for more than one, and where there is none this one looked in vain.
            self._queue.wake(model)

    def _refuse_long_wait(self, state: CallState, wait_s: float) -> None:
        if not wait_s:
            return
        remaining_s = state.call.remaining_s(self._clock.monotonic())
        limit_s = self._settings.queue_limit_s(state.call.priority)
        why = too_long(wait_s, remaining_s, limit_s)
        if why is not None:
            self.count("shed")
            retry_after_s = min(wait_s, MAX_RETRY_AFTER_S)
            raise exhausted(f"shed: {why.value}", reason=Reason.SHED, retry_after_s=retry_after_s)

    def _fits(self, model: str, needs: Needs, unsafe: frozenset[str] = frozenset()) -> Fits | None:
        if not (needs.capabilities or needs.tokens or unsafe):
            return None
        registered = self._registry.registered

        def fits(member_id: str) -> Exclusion | None:
            if member_id in unsafe:
                return Exclusion(member_id, Why.SAFER_IS_FREE)
            return unfit_because(registered[member_id], model, needs)

        return fits


def _fault_of(request: ResolvedRequest, choice: NoInstance) -> Fault:
    model = request.model
    if choice.unable:
        field = "options"
        if choice.excluded[0].why is Why.LACKS_INPUT:
            field = next(iter(needs_of(request).inputs.values()), field)
        message = f"every instance of {model!r} {choice.excluded[0].text}"
        return failed_precondition(field, message, Reason.CANNOT_SERVE)
    shown = choice.excluded[:EXCLUSIONS_SHOWN]
    why = "; ".join(f"{one.instance_id}: {one.text}" for one in shown) or choice.branch
    message = f"no instance can serve {model!r} now ({why})"
    return unavailable(message, retry_after_s=choice.retry_after_s, reason=Reason.NO_INSTANCE)


def _session_key(state: CallState) -> SessionKey | None:
    """Exactly this session of exactly this organisation; None when the call names none."""
    session = state.request.options.affinity_key or state.call.run_id
    return (state.call.principal.organisation, session) if session else None


def _blocks_of(state: CallState) -> tuple[object, ...]:
    if state.prefix_blocks is None:
        state.prefix_blocks = prefix_blocks(state.request.model, state.request.task.generate)
    return state.prefix_blocks


def no_model(name: str) -> Fault:
    """Nobody serves a model, or nobody serves it to this caller."""
    return not_found("options.model", f"no instance serves {name!r}", Reason.NO_MODEL)
