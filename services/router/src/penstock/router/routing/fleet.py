"""What a router knows of its instances: exact counts, learned speed, health.

Plain state; `now` is an argument, nothing here waits.

Speed is work done per second of busy slot, where requests still running count as busy time. So a
stalled instance loses speed before it answers. Both sums are forgotten with busy time (recent speed
counts most) and with wall time (a healed instance is tried again).
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from enum import Enum

ROUND_TRIPS = 128
LEAST_ROUND_TRIPS = 8
"""Answers that must have come before their least round trip says something."""


class Outcome(Enum):
    """How a request at an instance ended, as far as the instance is concerned."""

    SUCCESS = "success"
    REFUSED = "refused"
    """The caller's own mistake: says nothing about the instance."""
    SICK = "sick"
    """Answered with an error of its own."""
    GONE = "gone"
    """Did not answer at all."""
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Learning:
    """How speed is learnt.

    Times named `_services` are multiples of the fleet's mean service time.
    """

    forget_services: float = 30.0
    explore_services: float = 400.0
    explore_least_s: float = 0.0
    prior: float = 2.0
    fleet_prior: float = 5.0
    calm_band: float = 0.0
    """Speeds within this share of the median count as equal; 0 for none."""
    refresh_services: float = 0.05
    fade_services: float = 10.0
    """Age at which a load report counts 1/e; the rest is our own mean, times the other routers."""
    fade_least_s: float = 0.0
    peak_services: float = 30.0


@dataclass(frozen=True, slots=True)
class Health:
    """When an instance is left out, and how one that is new or back is let in."""

    failures_to_eject: int = 3
    first_ejection_s: float = 1.0
    longest_ejection_s: float = 60.0
    successes_to_join: int = 3
    slow_start_successes: int = 16


class Member:
    """One instance.

    `own` is exact: every `begin` is followed by one `end`, whatever happens to the request.
    """

    __slots__ = (
        "busy",
        "concurrency",
        "ejected_until",
        "ejections",
        "failures",
        "failures_in_row",
        "id",
        "leaving",
        "lives",
        "load_at",
        "lost",
        "on_trial",
        "others",
        "own",
        "peak_at",
        "peak_s",
        "picks",
        "reported",
        "seen",
        "settled",
        "speed",
        "stride",
        "successes",
        "successes_in_row",
        "utilization",
        "work",
    )

    def __init__(
        self, member_id: str, concurrency: int = 1, now: float = 0.0, *, proven: bool = False
    ) -> None:
        self.id = member_id
        self.concurrency = max(1, concurrency)
        self.own = 0
        self.others = 0.0
        self.reported: float | None = None
        self.load_at = -math.inf
        self.utilization = 0.0
        self.work = self.busy = 0.0
        self.speed = 0.0
        self.seen = now
        self.peak_s = 0.0
        self.peak_at = now
        self.stride = 0.0
        self.picks = self.failures = 0
        self.successes = 1 << 30 if proven else 0
        self.successes_in_row = self.failures_in_row = self.ejections = 0
        self.ejected_until = -math.inf
        self.on_trial = False
        self.leaving = False
        self.lost = False
        self.settled = proven
        self.lives = 0

    def renew(self, now: float) -> None:
        """The instance was started again: what was learnt of it is forgotten, what is in flight is
        not.
        """
        own, picks, failures, lives = self.own, self.picks, self.failures, self.lives
        Member.__init__(self, self.id, self.concurrency, now)
        self.own, self.picks, self.failures, self.lives = own, picks, failures, lives + 1

    def report(self, in_flight: int, concurrency: int, utilization: float, now: float) -> None:
        """Take what the instance says of its load: the part that is not our own belongs to other
        routers.
        """
        self.reported = max(0.0, float(in_flight - self.own))
        self.load_at = now
        self.utilization = utilization
        if concurrency:
            self.concurrency = concurrency


class Fleet:
    """The instances of one model, and what is learnt by comparing them."""

    def __init__(
        self,
        learning: Learning | None = None,
        health: Health | None = None,
        *,
        service_s: float = 0.02,
        routers: int = 1,
    ) -> None:
        self.learning = learning or Learning()
        self.health = health or Health()
        self.members: list[Member] = []
        self.service_s = service_s
        self.routers = routers
        self.turn = -1
        self.mean_tokens = 0.0
        self.p95_s = math.inf
        self.round_trip_s = math.inf
        """What an answer took beyond queue and service, the least of the last hundred or so;
        infinite until it is known.
        """
        self._round_trips: deque[float] = deque(maxlen=ROUND_TRIPS)
        self._took: deque[float] = deque(maxlen=256)
        self._since_p95 = 0
        self._refreshed = -math.inf
        self._busy_s = self._done = 0.0

    @property
    def speed(self) -> float:
        """Requests that a busy slot of the fleet serves in a second, all instances together."""
        work = sum(member.work for member in self.members)
        busy = sum(member.busy for member in self.members)
        prior = self.learning.fleet_prior
        return (work + prior) / (busy + prior * self.service_s)

    def begin(self, member: Member, now: float) -> None:
        """A request leaves for the instance."""
        self.advance(member, now)
        member.own += 1
        member.picks += 1
        if member.on_trial or now < member.ejected_until:
            member.settled = False

    def end(
        self, member: Member, now: float, outcome: Outcome, took_s: float = 0.0, work: float = 1.0
    ) -> None:
        """The request is over at the instance. Called exactly once for each `begin`."""
        self.advance(member, now)
        member.own -= 1
        if outcome is Outcome.SUCCESS:
            member.work += work
            self._done += work
            self._learn_service_time()
            self._peak(member, now, took_s)
            self._latency(took_s)
            self._succeed(member)
        elif outcome in (Outcome.SICK, Outcome.GONE):
            self._fail(member, now, outcome)

    def advance(self, member: Member, now: float) -> None:
        """Let the time since the last event count: busy slots add exposure, and both sums fade."""
        passed = now - member.seen
        if passed <= 0.0:
            return
        member.seen = now
        learning, service_s = self.learning, self.service_s
        faded = passed / max(learning.explore_services * service_s, learning.explore_least_s)
        own = member.own
        if own:
            total = own + member.others
            slots = own if total <= member.concurrency else own * member.concurrency / total
            busy = slots * passed
            member.busy += busy
            self._busy_s += busy
            faded += busy / (learning.forget_services * service_s)
        keep = math.exp(-faded)
        member.work *= keep
        member.busy *= keep

    def refresh(self, now: float) -> None:
        """Bring speeds and the others' load up to date; cheap when it was done a moment ago."""
        if now - self._refreshed < self.learning.refresh_services * self.service_s:
            return
        self._refreshed = now
        for member in self.members:
            self.advance(member, now)
        fleet_speed = self.speed
        prior_s = self.learning.prior * self.service_s
        for member in self.members:
            member.speed = (member.work + fleet_speed * prior_s) / (member.busy + prior_s)
        if self.learning.calm_band:
            self._calm()
        if self.routers > 1:
            self._count_others(now)

    def went(self, round_trip_s: float) -> None:
        """An answer has come; so long it was neither queued nor computed.

        The least counts, because the rest is queues not reported.
        """
        trips = self._round_trips
        oldest = trips[0] if len(trips) == ROUND_TRIPS else math.inf
        trips.append(max(0.0, round_trip_s))
        if len(trips) >= LEAST_ROUND_TRIPS:
            self.round_trip_s = (
                min(trips) if oldest <= self.round_trip_s else min(self.round_trip_s, trips[-1])
            )

    def forget_refresh(self) -> None:
        """Make the next `refresh` do its work: the members have changed."""
        self._refreshed = -math.inf

    def median_speed(self) -> float:
        speeds = sorted(member.speed for member in self.members)
        return speeds[len(speeds) // 2] if speeds else 1.0 / self.service_s

    def ejected(self, now: float) -> int:
        return sum(1 for member in self.members if now < member.ejected_until)

    def _calm(self) -> None:
        median, band = self.median_speed(), self.learning.calm_band
        for member in self.members:
            if abs(member.speed - median) <= band * median:
                member.speed = median

    def _count_others(self, now: float) -> None:
        """Others' requests: the last report, fading into our own mean times the other routers.

        Never halt, never zero, never full.
        """
        fade_s = max(self.learning.fade_services * self.service_s, self.learning.fade_least_s)
        guess = (
            (self.routers - 1)
            * sum(member.own for member in self.members)
            / max(1, len(self.members))
        )
        for member in self.members:
            if member.reported is None:
                member.others = guess
            else:
                trust = math.exp(min(0.0, member.load_at - now) / fade_s)
                member.others = trust * member.reported + (1.0 - trust) * guess

    def _learn_service_time(self) -> None:
        """The unit of time: busy seconds for each request, over the last few hundred."""
        if self._done >= 400.0:
            self._done /= 2.0
            self._busy_s /= 2.0
        if self._done >= 20.0:
            self.service_s = max(self._busy_s / self._done, 1e-6)

    def _latency(self, took_s: float) -> None:
        """The 95th percentile of the last answers, looked at again every 32; infinite until 64 are
        known.
        """
        self._took.append(took_s)
        self._since_p95 += 1
        if self._since_p95 >= 32 and len(self._took) >= 64:
            self._since_p95 = 0
            self.p95_s = sorted(self._took)[int(0.95 * len(self._took))]

    def _peak(self, member: Member, now: float, took_s: float) -> None:
        weight = math.exp(-(now - member.peak_at) / (self.learning.peak_services * self.service_s))
        member.peak_at = now
        member.peak_s = (
            took_s if took_s > member.peak_s else weight * member.peak_s + (1.0 - weight) * took_s
        )

    def _succeed(self, member: Member) -> None:
        if member.settled:
            member.failures_in_row = 0
            return
        member.successes += 1
        member.successes_in_row += 1
        member.failures_in_row = 0
        member.on_trial = False
        if member.successes_in_row >= self.health.successes_to_join:
            member.ejections = 0
        clear = not (member.leaving or member.lost) and member.ejections == 0
        member.settled = clear and member.successes >= self.health.slow_start_successes

    def _fail(self, member: Member, now: float, outcome: Outcome) -> None:
        member.failures += 1
        if now < member.ejected_until:
            return
        member.failures_in_row += 1
        member.successes_in_row = 0
        if not member.on_trial and member.failures_in_row < self.health.failures_to_eject:
            return
        # Errors that everybody gives may be the requests' fault: half the fleet stays in. One that
        # does not answer is out.
        if outcome is Outcome.SICK and 2 * (self.ejected(now) + 1) > len(self.members):
            return
        rest_s = min(
            self.health.longest_ejection_s,
            self.health.first_ejection_s * 2.0 ** min(member.ejections, 30),
        )
        member.ejections += 1
        member.ejected_until = now + rest_s
        member.on_trial = True
        member.settled = False
