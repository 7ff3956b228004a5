"""Fleets in the state that a test describes, and choices from them with seeded chance."""

from __future__ import annotations

from random import Random

from penstock.router.routing.choice import InstanceChoice, choose
from penstock.router.routing.fleet import Fleet, Member
from penstock.router.routing.late_binding import MIN_ROUND_TRIPS, LateBinding
from penstock.router.routing.strategies import STRATEGIES
from penstock.router.routing.strategy import Answer, RequestFeatures
from penstock.rpc.reasons import Verdict

SERVICE_S = 0.05
"""Service time that a fleet begins with."""
ANYTHING = RequestFeatures()
NOT_SETTLED = {"leaving", "ejected_until"}
"""What makes the choice look closely at an instance."""


def member(name: str, **changes: object) -> Member:
    """A proven instance, but for these attributes."""
    made = Member(name, proven=not changes.keys() & NOT_SETTLED)
    made.successes = 100
    for attribute, value in changes.items():
        setattr(made, attribute, value)
    return made


def fleet(*members: Member, **options: object) -> Fleet:
    """A fleet of these instances; `options` are those of Fleet."""
    made = Fleet(service_s=SERVICE_S, **options)  # type: ignore[arg-type]
    made.members = list(members)
    return made


def choice(
    known: Fleet,
    now: float = 0.0,
    strategy: str = "least_added_delay",
    request: RequestFeatures = ANYTHING,
) -> InstanceChoice:
    """What a new strategy of this name chooses."""
    return choose(known, STRATEGIES[strategy](), request, now, Random(1))


def fail(known: Fleet, bad: Member, now: float, verdict: Verdict, times: int = 3) -> None:
    """So many requests in a row fail at an instance."""
    for _ in range(times):
        known.begin(bad, now)
        known.fail(bad, now, verdict)


def late_binding(round_trip_s: float = 0.0) -> LateBinding:
    """Late binding that has measured its round trip."""
    strategy, somebody, unused = LateBinding(), member("somebody"), fleet()
    for _ in range(MIN_ROUND_TRIPS):
        strategy.answered(somebody, unused, answer(round_trip_s))
    return strategy


def answer(away_s: float | None, took_s: float = 1.0, now: float = 1.0) -> Answer:
    """An answer that spent so long neither queued nor computed."""
    return Answer(now, took_s, away_s)
