"""Which instance should serve this: filter, score, pick. Plain values; `now` and `rng` are arguments.

The performance score is the delay that a request would add to everybody, over the instance's learned speed:
[h(n+1) − h(n) + 0.001·n] / v with h(k) = k·max(1, k/C). n counts requests in flight there: this router's own, exactly, and those of
others by the last report. v is work done over slot time used, *requests still running included*, so that a stalled instance loses speed
before it answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

PRIOR_REQUESTS = 2.0
"""Weight of the fleet's speed in an instance's own, in requests."""
FLEET_PRIOR_REQUESTS = 5.0
FIRST_SERVICE_S = 0.05
"""Service time that is assumed before the first answer."""
FORGET_SERVICES = 30.0
"""Busy slot time after which old work counts 1/e, in mean service times."""
EXPLORE_SERVICES = 400.0
"""Wall time after which everything counts 1/e, in mean service times: a healed instance is found again."""
EXPLORE_BOUNDS_S = (5.0, 20.0)
STALE_S = 1.0
"""Reports older than this say nothing of other routers' requests."""
FAILURES_TO_EJECT = 3
EJECT_S = (1.0, 60.0)
SUCCESSES_TO_JOIN = 3


@dataclass(slots=True)
class Instance:
    """What a router knows of an instance. Times are seconds on its monotonic clock; `reported_at` is −inf before the first report."""

    id: str
    concurrency: int = 1
    models: frozenset[str] = frozenset()
    capabilities: frozenset[str] = frozenset()
    in_flight: int = 0
    others: int = 0
    reported_at: float = -math.inf
    busy_s: float = 0.0
    work: float = 0.0
    advanced_at: float = 0.0
    successes: int = 0
    failures_in_a_row: int = 0
    ejections: int = 0
    ejected_until: float = -math.inf
    draining: bool = False
    lost: bool = False
    picks: int = 0
    failures: int = 0

    @property
    def joining(self) -> bool:
        return self.successes < SUCCESSES_TO_JOIN


@dataclass(slots=True)
class Fleet:
    """All instances that a router knows."""

    instances: dict[str, Instance] = field(default_factory=dict)

    def speed(self) -> float:
        """Requests a slot second over the whole fleet, with a prior of five requests."""
        work = sum(instance.work for instance in self.instances.values())
        busy_s = sum(instance.busy_s for instance in self.instances.values())
        return (work + FLEET_PRIOR_REQUESTS) / (busy_s + FLEET_PRIOR_REQUESTS * FIRST_SERVICE_S)


def advance(instance: Instance, now: float, fleet_speed: float) -> None:
    """Let time pass for an instance: exposure grows while requests run, and both work and exposure are forgotten."""
    dt = now - instance.advanced_at
    instance.advanced_at = now
    if dt <= 0:
        return
    service_s = 1.0 / fleet_speed
    keep = math.exp(-dt / min(EXPLORE_BOUNDS_S[1], max(EXPLORE_BOUNDS_S[0], EXPLORE_SERVICES * service_s)))
    if instance.in_flight:
        total = instance.in_flight + _others(instance, now)
        grown_s = instance.in_flight * min(1.0, instance.concurrency / total) * dt
        instance.busy_s += grown_s
        keep *= math.exp(-grown_s / (FORGET_SERVICES * service_s))
    instance.busy_s *= keep
    instance.work *= keep


def _others(instance: Instance, now: float) -> int:
    return instance.others if now - instance.reported_at <= STALE_S else 0


def speed(instance: Instance, fleet_speed: float) -> float:
    """Requests a slot second, drawn towards the fleet's speed while little is known."""
    return (instance.work + PRIOR_REQUESTS) / (instance.busy_s + PRIOR_REQUESTS / fleet_speed)


def score(instance: Instance, now: float, fleet_speed: float) -> float:
    """The performance score in seconds of a mean request; lower is better."""
    n, slots = instance.in_flight + _others(instance, now), instance.concurrency
    added = _delay(n + 1, slots) - _delay(n, slots) + 0.001 * n
    return added / speed(instance, fleet_speed)


def _delay(requests: int, slots: int) -> float:
    return requests * max(1.0, requests / slots)


def began(instance: Instance, now: float, fleet_speed: float) -> None:
    """A request has been sent there."""
    advance(instance, now, fleet_speed)
    instance.in_flight += 1
    instance.picks += 1


def ended(instance: Instance, now: float, fleet_speed: float, outcome: bool | None) -> None:
    """A request has come back: True served, False failed by the instance's fault, None neither (cancelled, caller's fault)."""
    advance(instance, now, fleet_speed)
    instance.in_flight -= 1
    if outcome is True:
        instance.work += 1.0
        instance.successes += 1
        instance.failures_in_a_row = 0
        instance.ejections = 0
    elif outcome is False:
        instance.failures += 1
        instance.failures_in_a_row += 1
        if instance.failures_in_a_row >= FAILURES_TO_EJECT:
            instance.ejected_until = now + min(EJECT_S[1], EJECT_S[0] * 2.0**instance.ejections)
            instance.ejections += 1


def reported(instance: Instance, now: float, total_in_flight: int) -> None:
    """A load report has come: what is in flight there that is not ours."""
    instance.others = max(0, total_in_flight - instance.in_flight)
    instance.reported_at = now


@dataclass(frozen=True, slots=True)
class Ask:
    """What a request needs of an instance."""

    model: str
    capabilities: frozenset[str] = frozenset()
    tried: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Candidate:
    """An instance as the pick saw it; `filtered` says why it was left out."""

    instance_id: str
    score: float
    signals: Mapping[str, tuple[float, float]]
    filtered: str = ""


@dataclass(frozen=True, slots=True)
class Pick:
    """The verdict: which instance, by which branch, and everything that was looked at. Empty id: none can serve."""

    instance_id: str
    branch: str
    score: float
    candidates: tuple[Candidate, ...]


def filter_reason(instance: Instance, ask: Ask, now: float) -> str:
    """Why an instance cannot take this request; empty where it can."""
    if ask.model not in instance.models:
        return "does not serve the model"
    if missing := ask.capabilities - instance.capabilities:
        return f"lacks {', '.join(sorted(missing))}"
    if instance.lost:
        return "lost: its lease has run out"
    if instance.draining:
        return "draining"
    if instance.id in ask.tried:
        return "tried already"
    if now < instance.ejected_until:
        return "ejected after failures"
    if instance.ejections and instance.in_flight:
        return "on trial: one request at a time"
    if instance.joining and instance.in_flight:
        return "joining: one request at a time"
    return ""


Scorer = Callable[[Instance, float, float], float]
STRATEGIES: dict[str, Scorer] = {
    "least_added_delay": score,
    "least_requests": lambda instance, now, _: float(instance.in_flight + _others(instance, now)),
    "round_robin": lambda instance, _now, _speed: float(instance.picks),
}


def pick(fleet: Fleet, ask: Ask, now: float, rng: Random, strategy: str = "least_added_delay") -> Pick:
    """Choose an instance: filter, score, the least score wins and equal ones draw lots.

    When only joining or ejected instances are left they are used after all: missing data never halts the fleet.
    """
    fleet_speed = fleet.speed()
    for instance in fleet.instances.values():
        advance(instance, now, fleet_speed)
    reasons = {instance.id: filter_reason(instance, ask, now) for instance in fleet.instances.values()}
    able = [instance for instance in fleet.instances.values() if not reasons[instance.id]]
    branch = "lowest score"
    if not able:
        soft = ("joining", "on trial", "ejected")
        able = [instance for instance in fleet.instances.values() if reasons[instance.id].startswith(soft)]
        branch = "no ready instance: the least bad"
    scorer = STRATEGIES.get(strategy, score)
    if strategy == "power_of_two" and len(able) > 2:
        able, scorer = rng.sample(able, 2), STRATEGIES["least_requests"]
    scores = {instance.id: scorer(instance, now, fleet_speed) for instance in able}
    candidates = tuple(
        Candidate(item.id, scores.get(item.id, math.inf), _signals(item, now, fleet_speed), reasons[item.id])
        for item in fleet.instances.values()
        if reasons[item.id] != "does not serve the model"
    )
    if not able:
        return Pick("", "no instance can serve", math.inf, candidates)
    least = min(scores.values())
    chosen = rng.choice([instance for instance in able if scores[instance.id] <= least])
    return Pick(chosen.id, f"{strategy}: {branch}", least, candidates)


def _signals(instance: Instance, now: float, fleet_speed: float) -> dict[str, tuple[float, float]]:
    """Inputs of the score as (value, age in seconds); age −1 where there has been no data."""
    age = now - instance.reported_at
    return {
        "in_flight_own": (float(instance.in_flight), 0.0),
        "in_flight_others": (float(_others(instance, now)), -1.0 if math.isinf(age) else age),
        "speed": (speed(instance, fleet_speed), 0.0),
        "concurrency": (float(instance.concurrency), 0.0),
    }


def best_first(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Candidates by score, the filtered ones last."""
    return sorted(candidates, key=lambda item: (bool(item.filtered), item.score, item.instance_id))


class RetryBudget:
    """Retries as a share of requests: each request earns `share` of a retry, at most `most` are saved (a token bucket)."""

    def __init__(self, share: float, most: float = 10.0) -> None:
        self._share = share
        self._most = most
        self._saved = most if share > 0 else 0.0

    def request(self) -> None:
        """A first attempt was made."""
        self._saved = min(self._most, self._saved + self._share)

    def take(self) -> bool:
        """Whether a retry may be made now."""
        if self._saved < 1.0:
            return False
        self._saved -= 1.0
        return True
