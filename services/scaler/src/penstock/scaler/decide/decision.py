"""The scaling decision: how many instances a pool should have.

A pure function of what is known about the pool, its policy and what earlier decisions left. It
takes four steps:

1. Without fresh demand, nothing is taken away and the last decision stands.
2. The largest of four needs is wanted: the forecast, present demand, the backlog, the schedule.
   In a panic (demand twice what is ready), nothing is taken away for a minute.
3. The wanted number is brought between the pool's bounds; zero only after long idleness.
4. The change is slowed: upwards by the rate of Kubernetes' HPA, downwards until a surplus instance
   has cost as much as starting it again would.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from penstock.service.purity import pure

ROUNDING = 1e-9
"""Work that exceeds whole instances by less than this share needs no further instance."""


@pure
def newsvendor_level(shortage_cost: float, excess_cost: float) -> float:
    """Return the quantile of demand to provide for: shortage / (shortage + excess).

    It minimises the expected cost of capacity under uncertain demand (the newsvendor's critical
    ratio; Arrow, Harris and Marschak 1951). Both costs are for one unit of work.

    Raises:
        ValueError: a cost is negative, or both are zero.
    """
    if shortage_cost < 0 or excess_cost < 0 or shortage_cost + excess_cost == 0:
        raise ValueError(
            "shortage_cost and excess_cost must not be negative, and one must be above zero"
        )
    return shortage_cost / (shortage_cost + excess_cost)


@dataclass(frozen=True)
class ScalingPolicy:
    """Bounds and rates of a pool's scaling; rates as in Kubernetes' HPA and Knative.

    Args:
        scale_up_ratio, scale_up_instances: the larger of the two may be added in one
            `scale_up_period_s`, the ratio being of the instances at its beginning.
        scale_down_ratio: share of the instances, at least one, that may be removed in one
            `scale_down_period_s`.
        start_cost_s: what a start costs, in seconds of one instance. A surplus instance is kept
            until it has cost as much (ski rental: at most twice the cost of perfect foresight).
        drain_backlog_s: time in which waiting work is to be done.
        panic_ratio: demand over ready capacity at which a panic begins.
        scale_to_zero_after_s: time without demand before the last instance is removed; only with
            `min_instances` 0.
        stale_after_s: time without a sample after which demand counts as unknown.
    """

    min_instances: int = 1
    max_instances: int = 10
    scale_up_ratio: float = 1.0
    scale_up_instances: int = 4
    scale_up_period_s: float = 15.0
    scale_down_ratio: float = 0.1
    scale_down_period_s: float = 60.0
    start_cost_s: float = 180.0
    drain_backlog_s: float = 30.0
    panic_ratio: float = 2.0
    panic_hold_s: float = 60.0
    scale_to_zero_after_s: float = 300.0
    stale_after_s: float = 60.0


@dataclass(frozen=True)
class PoolState:
    """What is known about a pool at one moment. Rates are work per second.

    Args:
        current: instances asked for, of which `ready` serve.
        capacity: work of one instance in a second at the target utilisation; 0 where unknown.
        demand: rate of the last whole interval.
        backlog: work that waits.
        forecast: largest forecast quantile over the horizon and the hold.
        measured_at_s: when demand was last reported; -inf before the first report.
        scheduled_minimum: instances that a schedule asks for now.
        reactive_reason: why reactive rules made the forecast; empty where they did not.
        last_wanted: what was decided before a restart; 0 where nothing was.
        burst: rate of the last few seconds; only begins and sustains a panic.
    """

    current: int
    ready: int
    capacity: float
    demand: float
    backlog: float
    forecast: float
    measured_at_s: float
    scheduled_minimum: int = 0
    reactive_reason: str = ""
    last_wanted: int = 0
    burst: float = 0.0


@dataclass(frozen=True)
class DecisionState:
    """What one decision leaves for the next; times are those of its `now_s`.

    Args:
        scale_up_period_start_s, scale_up_from: when the running period of scaling up began, and
            with how many instances.
        scaled_down_at_s: when an instance was last removed.
    """

    panic_until_s: float = -math.inf
    surplus_since_s: float | None = None
    idle_since_s: float | None = None
    scale_up_period_start_s: float = -math.inf
    scale_up_from: int = 0
    scaled_down_at_s: float = -math.inf


@dataclass(frozen=True)
class Target:
    """The decision.

    Args:
        wanted: how many instances there should be now.
        reason: which rule decided, for people.
        floor: instances that present demand alone needs.
        state: to be given to the next decision.
        is_deferred: whether a rate or the cost of a start holds back a change that is still due.
    """

    wanted: int
    reason: str
    floor: int
    state: DecisionState
    is_deferred: bool = False


@pure
def decide(pool: PoolState, policy: ScalingPolicy, state: DecisionState, now_s: float) -> Target:
    """Decide how many instances the pool should have.

    Args:
        state: what the last decision left; `DecisionState()` for the first.
        now_s: the time, of the same clock as `pool.measured_at_s`.
    """
    floor = instances_for(pool.demand, pool.capacity)
    if now_s - pool.measured_at_s > policy.stale_after_s:
        wanted = _without_fresh_demand(pool, policy)
        return Target(wanted, "no fresh demand: the last answer stands", floor, state)
    state = _updated(state, pool, policy, now_s)
    wanted, reason = _largest_need(pool, policy, floor)
    if now_s < state.panic_until_s:
        kept = max(pool.current, instances_for(pool.burst, pool.capacity))
        if wanted <= kept:
            wanted, reason = kept, "panic"
    wanted, reason = _bounded(wanted, reason, policy, _idle_for_s(state, now_s), pool.current)
    target = Target(wanted, reason, floor, state)
    if wanted >= pool.current:
        return _limited_up(target, pool, policy, now_s)
    return _limited_down(target, pool, policy, now_s)


def instances_for(work: float, capacity: float) -> int:
    """Return how many instances do this much work a second.

    One where there is work and the capacity is unknown.
    """
    if work <= 0:
        return 0
    return math.ceil(work / capacity - ROUNDING) if capacity > 0 else 1


def _without_fresh_demand(pool: PoolState, policy: ScalingPolicy) -> int:
    # Once there was demand, one instance stays: at zero nobody would see demand return.
    minimum = 1 if math.isfinite(pool.measured_at_s) else 0
    wanted = max(
        pool.current, policy.min_instances, pool.scheduled_minimum, pool.last_wanted, minimum
    )
    return min(wanted, policy.max_instances)


def _updated(
    state: DecisionState, pool: PoolState, policy: ScalingPolicy, now_s: float
) -> DecisionState:
    """The state with the beginning of a panic, and the beginning or end of idleness."""
    demand = max(pool.demand, pool.burst)
    if demand > policy.panic_ratio * max(pool.ready, 1) * pool.capacity > 0:
        state = replace(state, panic_until_s=now_s + policy.panic_hold_s)
    if max(demand, pool.backlog) > 0:
        return replace(state, idle_since_s=None)
    if state.idle_since_s is None:
        return replace(state, idle_since_s=now_s)
    return state


def _largest_need(pool: PoolState, policy: ScalingPolicy, floor: int) -> tuple[int, str]:
    """The largest need of instances and its reason; of equal ones the first."""
    backlog_need = 0
    if pool.backlog > 0:
        work = pool.demand + pool.backlog / policy.drain_backlog_s
        backlog_need = instances_for(work, pool.capacity)
    needs = {
        pool.reactive_reason or "forecast": instances_for(pool.forecast, pool.capacity),
        "present demand": floor,
        "backlog": backlog_need,
        "schedule": pool.scheduled_minimum,
    }
    reason = max(needs, key=lambda name: needs[name])
    return needs[reason], reason


def _idle_for_s(state: DecisionState, now_s: float) -> float | None:
    return None if state.idle_since_s is None else now_s - state.idle_since_s


def _bounded(
    wanted: int, reason: str, policy: ScalingPolicy, idle_for_s: float | None, current: int
) -> tuple[int, str]:
    """The number between the pool's bounds, with its reason.

    To zero only after long idleness; from zero as soon as there is demand or backlog.
    """
    if wanted > policy.max_instances:
        return policy.max_instances, "max_instances"
    if wanted >= max(policy.min_instances, 1):
        return wanted, reason
    if policy.min_instances > 0:
        return policy.min_instances, "min_instances"
    if idle_for_s is None:
        return 1, reason
    if current == 0 or idle_for_s >= policy.scale_to_zero_after_s:
        return 0, "nothing arrives"
    return 1, "waits for work before zero"


def _limited_up(target: Target, pool: PoolState, policy: ScalingPolicy, now_s: float) -> Target:
    """Add at most the share or number of instances that a period allows (HPA's default rate)."""
    state = replace(target.state, surplus_since_s=None)
    if now_s - state.scale_up_period_start_s >= policy.scale_up_period_s:
        state = replace(state, scale_up_period_start_s=now_s, scale_up_from=pool.current)
    start = state.scale_up_from
    highest = start + max(math.floor(start * policy.scale_up_ratio), policy.scale_up_instances)
    if target.wanted <= highest:
        return replace(target, state=state)
    return replace(
        target,
        wanted=max(highest, pool.current),
        reason=f"{target.reason}, held by the rate up",
        state=state,
        is_deferred=True,
    )


def _limited_down(target: Target, pool: PoolState, policy: ScalingPolicy, now_s: float) -> Target:
    """Remove instances once the surplus has cost a start, a share of them in each period."""
    since_s = target.state.surplus_since_s
    if since_s is None:
        since_s = now_s
    state = replace(target.state, surplus_since_s=since_s)
    target = replace(target, state=state)
    if now_s - since_s < policy.start_cost_s:
        return _kept(target, pool, "held by scale-down cost")
    if now_s - state.scaled_down_at_s < policy.scale_down_period_s:
        return _kept(target, pool, "held by the rate down")
    step = max(1, math.floor(pool.current * policy.scale_down_ratio))
    return replace(
        target,
        wanted=max(target.wanted, pool.current - step),
        state=replace(state, scaled_down_at_s=now_s),
    )


def _kept(target: Target, pool: PoolState, reason: str) -> Target:
    return replace(target, wanted=pool.current, reason=reason, is_deferred=True)
