"""What a router knows of the instances of one model: exact counts, learned speed, health.

Plain state; `now` (monotonic seconds) is an argument and nothing here waits.

Speed is work done per second of busy slot, where requests that still run count as busy time. So a
stalled instance loses speed before it answers. Both sums fade with busy time, since recent speed
counts most, and with wall time, so that an instance that has recovered is tried again.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass

from penstock.rpc.reasons import Verdict
from penstock.service.purity import pure

LATENCIES_KEPT, LATENCIES_NEEDED, LATENCIES_BETWEEN = 256, 64, 32
"""Latencies that the 95th percentile is taken of, how many it needs, and how often it is taken."""


PRIORITIES = 5
"""Numbers of priorities, that of none included."""


@dataclass(frozen=True, slots=True)
class Learning:
    """How speed is learned. Times named `_services` are multiples of the fleet's service time."""

    forget_services: float = 30.0
    """Busy time after which what was learned counts 1/e."""
    explore_services: float = 400.0
    """Wall time after which it counts 1/e, at least `explore_min_s`."""
    explore_min_s: float = 0.0
    prior: float = 2.0
    """Requests at the fleet's mean speed that an instance is believed to have served already."""
    fleet_prior: float = 5.0
    """The same for the fleet, at the service time that it began with."""
    calm_band: float = 0.0
    """Speeds within this share of the median count as equal; 0 for none."""
    refresh_services: float = 0.05
    """Time within which speeds are not computed again."""
    fade_services: float = 10.0
    """Age at which a load report counts 1/e, at least `fade_min_s`; see `_estimate_others`."""
    fade_min_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Health:
    """When an instance is left out, and how one that is new or back is let in."""

    failures_to_eject: int = 3
    """Failures in a row; one request counts once, however often it fails."""
    unusable_rest_s: float = 60.0
    """Rest of an instance at which the operator has to mend something."""
    max_rest_s: float = 300.0
    """Longest rest that an instance may ask for."""
    first_ejection_s: float = 1.0
    max_ejection_s: float = 60.0
    successes_to_join: int = 3
    slow_start_successes: int = 16


@pure
class Member:
    """One instance. `own` is exact: each `begin` is followed by one `succeed` or `fail`."""

    __slots__ = (
        "busy",
        "causes",
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
        "own_by_priority",
        "picks",
        "reported",
        "seen",
        "settled",
        "speed",
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
        """Requests of this router in flight."""
        self.own_by_priority = [0] * PRIORITIES
        """Those whose priority is known, by its number."""
        self.others = 0.0
        """Requests of other routers in flight, as estimated."""
        self.reported: float | None = None
        self.utilization = 0.0
        self.work = self.busy = 0.0
        """Requests served and busy seconds, both faded."""
        self.speed = 0.0
        """Requests that a busy slot serves in a second."""
        self.seen = now
        self.picks = self.failures = 0
        self.successes = 1 << 30 if proven else 0
        self.successes_in_row = self.failures_in_row = self.ejections = 0
        self.causes: set[Hashable] = set()
        """Requests that the failures in a row came from, where a request may be at fault."""
        self.load_at = self.ejected_until = -math.inf
        self.on_trial = False
        """Back after an ejection: one request at a time until one succeeds."""
        self.leaving = self.lost = False
        self.settled = proven
        """Proven, and nothing speaks against it: need not be looked at more closely."""
        self.lives = 0
        """How often it was started again."""

    @property
    def in_flight(self) -> float:
        """Requests at the instance: ours exactly, the others' as estimated."""
        return self.own + self.others

    def own_as_urgent(self, priority: int) -> int:
        """Requests of this router in flight that are as urgent as `priority` or more."""
        return self.own - sum(self.own_by_priority[:priority])

    def renew(self, now: float) -> None:
        """The instance was started again: what was learned is forgotten, what is in flight not."""
        own, picks, failures, lives = self.own, self.picks, self.failures, self.lives
        by_priority = self.own_by_priority
        Member.__init__(self, self.id, self.concurrency, now)
        self.own_by_priority = by_priority
        self.own, self.picks, self.failures, self.lives = own, picks, failures, lives + 1

    def report(self, in_flight: int, concurrency: int, utilization: float, now: float) -> None:
        """Take in what the instance says of its load: what is not ours is the other routers'."""
        self.reported = max(0.0, float(in_flight - self.own))
        self.load_at = now
        self.utilization = utilization
        if concurrency:
            self.concurrency = concurrency


@pure
class Fleet:
    """The instances of one model, and what is learned by comparing them."""

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
        self.resting: dict[str, float] = {}
        """Until when instances rest, by id: they asked for it, or the operator has to mend
        something there. A rest is for this model only, since limits, balances and names are often a
        model's own.
        """
        self.service_s = service_s
        """Busy seconds of a request, as a mean of the last few hundred: the unit of time here."""
        self.routers = routers
        self.p95_s = math.inf
        """95th percentile of the latest latencies; infinite until enough are known."""
        self._latencies: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self._since_p95 = 0
        self._refreshed = -math.inf
        self._busy_s = self._done = 0.0

    @property
    def speed(self) -> float:
        """Requests that a busy slot serves in a second, all instances together."""
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

    def succeed(self, member: Member, now: float, took_s: float, work: float = 1.0) -> None:
        """A request was answered after `took_s`; `work` is its size in mean requests."""
        self.advance(member, now)
        member.own -= 1
        member.work += work
        self._done += work
        self._learn_service_time()
        self._learn_latency(took_s)
        if member.failures_in_row:
            member.failures_in_row = 0
            member.causes.clear()
        if not member.settled:
            self._prove(member)

    def fail(
        self,
        member: Member,
        now: float,
        verdict: Verdict,
        *,
        rest_s: float = 0.0,
        cause: Hashable = None,
    ) -> None:
        """A request ended without an answer.

        Args:
            verdict: what that says of the instance.
            rest_s: how long the instance asks to be left alone.
            cause: what tells the request from others; None where it is not known.
        """
        self.advance(member, now)
        member.own -= 1
        if verdict is Verdict.NOTHING:
            return
        member.failures += 1
        if verdict is Verdict.UNUSABLE:
            self._rest(member, now, max(rest_s, self.health.unusable_rest_s))
        elif verdict is Verdict.BUSY and rest_s:
            self._rest(member, now, rest_s)
        else:
            self._hold_against(member, now, verdict, cause)

    def rests(self, member: Member, now: float) -> bool:
        """Whether the instance is to be left alone."""
        return now < self.resting.get(member.id, -math.inf)

    def advance(self, member: Member, now: float) -> None:
        """Count the time since the last event: busy slots add exposure, and both sums fade."""
        passed = now - member.seen
        if passed <= 0.0:
            return
        member.seen = now
        learning, service_s = self.learning, self.service_s
        faded = passed / max(learning.explore_services * service_s, learning.explore_min_s)
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
        """Bring speeds and the others' load up to date, unless that was done a moment ago."""
        if now - self._refreshed < self.learning.refresh_services * self.service_s:
            return
        self._refreshed = now
        for member in self.members:
            self.advance(member, now)
        if self.resting:
            self.resting = {name: until for name, until in self.resting.items() if now < until}
        fleet_speed = self.speed
        prior_s = self.learning.prior * self.service_s
        for member in self.members:
            member.speed = (member.work + fleet_speed * prior_s) / (member.busy + prior_s)
        if band := self.learning.calm_band:
            median = self.median_speed()
            for member in self.members:
                if abs(member.speed - median) <= band * median:
                    member.speed = median
        if self.routers > 1:
            self._estimate_others(now)

    def forget_refresh(self) -> None:
        """Let the next `refresh` do its work: the members have changed."""
        self._refreshed = -math.inf

    def median_speed(self) -> float:
        """The median of the members' speeds."""
        speeds = sorted(member.speed for member in self.members)
        return speeds[len(speeds) // 2] if speeds else 1.0 / self.service_s

    def ejected(self, now: float) -> int:
        """Members that are ejected now."""
        return sum(1 for member in self.members if now < member.ejected_until)

    def _estimate_others(self, now: float) -> None:
        """Others' requests: the last report, fading into our own mean times the other routers.

        So an instance without reports looks neither idle nor full.
        """
        fade_s = max(self.learning.fade_services * self.service_s, self.learning.fade_min_s)
        mean_own = sum(member.own for member in self.members) / max(1, len(self.members))
        guess = (self.routers - 1) * mean_own
        for member in self.members:
            if member.reported is None:
                member.others = guess
            else:
                trust = math.exp(min(0.0, member.load_at - now) / fade_s)
                member.others = trust * member.reported + (1.0 - trust) * guess

    def _learn_service_time(self) -> None:
        if self._done >= 400.0:
            self._done, self._busy_s = self._done / 2.0, self._busy_s / 2.0
        if self._done >= 20.0:
            self.service_s = max(self._busy_s / self._done, 1e-6)

    def _learn_latency(self, took_s: float) -> None:
        self._latencies.append(took_s)
        self._since_p95 += 1
        enough = len(self._latencies) >= LATENCIES_NEEDED
        if enough and self._since_p95 >= LATENCIES_BETWEEN:
            self._since_p95 = 0
            self.p95_s = sorted(self._latencies)[int(0.95 * len(self._latencies))]

    def _prove(self, member: Member) -> None:
        member.successes += 1
        member.successes_in_row += 1
        member.on_trial = False
        if member.successes_in_row >= self.health.successes_to_join:
            member.ejections = 0
        clear = not (member.leaving or member.lost) and member.ejections == 0
        member.settled = clear and member.successes >= self.health.slow_start_successes

    def _rest(self, member: Member, now: float, rest_s: float) -> None:
        until = now + min(rest_s, self.health.max_rest_s)
        self.resting[member.id] = max(until, self.resting.get(member.id, until))

    def _hold_against(self, member: Member, now: float, verdict: Verdict, cause: Hashable) -> None:
        if now < member.ejected_until:
            return
        if verdict is Verdict.SICK and cause is not None:
            if cause in member.causes:
                return
            member.causes.add(cause)
        member.failures_in_row += 1
        member.successes_in_row = 0
        if not member.on_trial and member.failures_in_row < self.health.failures_to_eject:
            return
        # Errors that everybody gives may be the requests' fault: half of the fleet stays in. One
        # that does not answer is out.
        if verdict is Verdict.SICK and 2 * (self.ejected(now) + 1) > len(self.members):
            return
        rest_s = self.health.first_ejection_s * 2.0 ** min(member.ejections, 30)
        member.ejections += 1
        member.ejected_until = now + min(self.health.max_ejection_s, rest_s)
        member.causes.clear()
        member.on_trial = True
        member.settled = False
