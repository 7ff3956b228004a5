"""The decision: how many instances, from a forecast, what is there now, and what the last decisions
were. Plain values in and out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace


def newsvendor_level(under: float, over: float) -> float:
    """The quantile to provide for, from prices: under / (under + over), each per unit of work and
    time (Arrow et al. 1951).

    Raises:
        ValueError: a price is negative, or both are zero.
    """
    if under < 0 or over < 0 or under + over == 0:
        raise ValueError(
            "prices of too little and of too much must not be negative, and not both zero"
        )
    return under / (under + over)


@dataclass(frozen=True)
class ScalingPolicy:
    """What one pool may do. Rates are HPA's and Knative's defaults where those have one.

    `start_cost_s`: what a start costs, in seconds of one instance; a surplus instance is kept until
    that has cost as much (ski rental, so at most twice the best that hindsight could do).
    `zero_after_s`: how long nothing must have arrived; only with `least` 0.
    """

    least: int = 1
    most: int = 10
    up_share: float = 1.0
    up_count: int = 4
    up_every_s: float = 15.0
    down_share: float = 0.1
    down_every_s: float = 60.0
    start_cost_s: float = 180.0
    drain_backlog_s: float = 30.0
    panic_ratio: float = 2.0
    panic_hold_s: float = 60.0
    zero_after_s: float = 300.0
    stale_s: float = 60.0


@dataclass(frozen=True)
class PoolState:
    """What is known at one moment.

    Work is per second; `capacity` is what one instance does in a second at the wanted utilisation.

    `demand` is that of the last whole interval, `burst` that of the last few seconds, which counts
    in panic alone.

    `forecast`: the most of the forecast quantile over the horizon and the hold. `measured_at`: when
    demand was last reported, -inf before the first report; `last_answer`: what was decided before a
    restart; `reactive`: why the reactive rules made the forecast, empty where they did not.
    """

    current: int
    ready: int
    capacity: float
    demand: float
    backlog: float
    forecast: float
    measured_at: float
    scheduled: int = 0
    reactive: str = ""
    last_answer: int = 0
    burst: float = 0.0


@dataclass(frozen=True)
class DecisionState:
    """What one decision leaves for the next."""

    panic_until: float = -math.inf
    surplus_since: float | None = None
    idle_since: float | None = None
    up_at: float = -math.inf
    up_from: int = 0
    down_at: float = -math.inf


@dataclass(frozen=True)
class Target:
    """How many instances, which rule said so, and what present demand alone would need."""

    wanted: int
    reason: str
    floor: int
    memory: DecisionState


def decide(view: PoolState, rules: ScalingPolicy, memory: DecisionState, now: float) -> Target:
    """Decide. Without fresh demand nothing is taken away: the last answer stands.

    Args:
        now: the same clock as `measured_at`, in seconds.
    """
    floor = instances(view.demand, view.capacity)
    if now - view.measured_at > rules.stale_s:
        waker = (
            1 if math.isfinite(view.measured_at) else 0
        )  # once there was demand, zero would hide that it has come back
        kept = min(
            max(view.current, rules.least, view.scheduled, view.last_answer, waker), rules.most
        )
        return Target(kept, "no fresh demand: the last answer stands", floor, memory)
    memory = _noted(view, rules, memory, now)
    needed, reason = _needed(view, rules, floor)
    at_least = max(view.current, instances(view.burst, view.capacity))
    if now < memory.panic_until and needed <= at_least:
        needed, reason = at_least, "panic"
    needed, reason = _bounded(needed, reason, view, rules, memory, now)
    if needed >= view.current:
        memory = replace(memory, surplus_since=None)
        return _up(Target(needed, reason, floor, memory), view, rules, now)
    return _down(Target(needed, reason, floor, memory), view, rules, now)


def instances(work: float, capacity: float) -> int:
    """How many instances do so much work a second; one where capacity is not known yet and there is
    work.
    """
    if work <= 0:
        return 0
    return math.ceil(work / capacity - 1e-9) if capacity > 0 else 1


def _needed(view: PoolState, rules: ScalingPolicy, floor: int) -> tuple[int, str]:
    """The most that any rule asks for, and which one."""
    waiting = (
        instances(view.demand + view.backlog / rules.drain_backlog_s, view.capacity)
        if view.backlog > 0
        else 0
    )
    asked = {
        view.reactive or "forecast": instances(view.forecast, view.capacity),
        "present demand": floor,
        "backlog": waiting,
        "schedule": view.scheduled,
    }
    reason = max(asked, key=lambda name: asked[name])
    return asked[reason], reason


def _noted(
    view: PoolState, rules: ScalingPolicy, memory: DecisionState, now: float
) -> DecisionState:
    """Panic begins when demand passes twice what is ready; idleness begins when nothing arrives and
    nothing waits.
    """
    if max(view.demand, view.burst) > rules.panic_ratio * max(view.ready, 1) * view.capacity > 0:
        memory = replace(memory, panic_until=now + rules.panic_hold_s)
    busy = max(view.demand, view.burst, view.backlog) > 0
    idle_since = None if busy else (now if memory.idle_since is None else memory.idle_since)
    return replace(memory, idle_since=idle_since)


def _bounded(
    needed: int,
    reason: str,
    view: PoolState,
    rules: ScalingPolicy,
    memory: DecisionState,
    now: float,
) -> tuple[int, str]:
    """Between least and most; to zero only when nothing has come for long, up from zero as soon as
    something waits.
    """
    if needed > rules.most:
        return rules.most, "most"
    if needed >= max(rules.least, 1):
        return needed, reason
    if rules.least > 0:
        return rules.least, "least"
    idle = memory.idle_since is not None and now - memory.idle_since >= rules.zero_after_s
    if idle or (view.current == 0 and memory.idle_since is not None):
        return 0, "nothing arrives"
    return 1, "waits for work before zero" if memory.idle_since is not None else reason


def _up(verdict: Target, view: PoolState, rules: ScalingPolicy, now: float) -> Target:
    """At most twice, or four more, in 15 s (HPA's rule)."""
    memory = verdict.memory
    if now - memory.up_at >= rules.up_every_s:
        memory = replace(memory, up_at=now, up_from=view.current)
    most = memory.up_from + max(math.floor(memory.up_from * rules.up_share), rules.up_count)
    if verdict.wanted > most:
        return replace(
            verdict,
            wanted=max(most, view.current),
            reason=f"{verdict.reason}, held by the rate up",
            memory=memory,
        )
    return replace(verdict, memory=memory)


def _down(verdict: Target, view: PoolState, rules: ScalingPolicy, now: float) -> Target:
    """Give instances back once the surplus has cost a start, a tenth of the fleet a minute and at
    least one.
    """
    memory = verdict.memory
    since = now if memory.surplus_since is None else memory.surplus_since
    memory = replace(memory, surplus_since=since)
    if now - since < rules.start_cost_s:
        return replace(
            verdict, wanted=view.current, reason="held by scale-down cost", memory=memory
        )
    if now - memory.down_at < rules.down_every_s:
        return replace(verdict, wanted=view.current, reason="held by the rate down", memory=memory)
    step = max(1, math.floor(view.current * rules.down_share))
    wanted = max(verdict.wanted, view.current - step)
    return replace(verdict, wanted=wanted, memory=replace(memory, down_at=now))
