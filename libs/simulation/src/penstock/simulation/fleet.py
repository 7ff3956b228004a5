"""A fleet in virtual time: arrivals, routers with the serving policy, and instances.

Seeded; nothing waits in real time.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from penstock.router.calls.attempts import RETRIES_SAVED
from penstock.router.instances.registry import LEARNING
from penstock.router.routing.choice import Chosen, ExtrasBudget, Queued, choose
from penstock.router.routing.fleet import Fleet, Learning, Member
from penstock.router.routing.strategies import STRATEGIES
from penstock.router.routing.strategy import Answer, RequestFeatures
from penstock.rpc.reasons import Verdict

SERVICE_S = 0.05
"""Mean service time of the fastest instance; tables call it S."""
FAILURE_S = 0.001
"""After this time a failing instance answers with its failure."""
MAX_ATTEMPTS = 3
RETRY_SHARE = 0.1
UTILIZATION_WINDOW_S = 10.0 * SERVICE_S
SIZE_SIGMA = math.sqrt(math.log(2.0))
"""Sizes are log-normal with a coefficient of variation of 1."""


@dataclass(slots=True)
class SimulatedRequest:
    """One request.

    Attributes:
        arrived_s: when it came.
        size_s: its work, in seconds on an instance of speed 1.
        router: the router that serves it.
        tried: instances that it was sent to.
        attempts: number of times that it was sent.
        sent_s: when it was sent last.
        features: what the strategy knows of it.
        work: its work relative to others, for the strategy's learning.
        payload: of a subclass of FleetSimulation.
    """

    arrived_s: float
    size_s: float
    router: SimulatedRouter
    tried: set[str] = field(default_factory=set)
    attempts: int = 0
    sent_s: float = 0.0
    features: RequestFeatures = field(default_factory=RequestFeatures)
    work: float = 1.0
    payload: object = None


class SimulatedInstance:
    """An instance with `slots`.

    It serves `slots` requests at a time in order of arrival; with `shared` it serves all at once,
    each at a rate of min(1, slots / n) (processor sharing).
    """

    def __init__(self, name: str, slots: int, speed: float, shared: bool) -> None:
        self.name = name
        self.slots = slots
        self.speed = speed
        self.shared = shared
        self.failing = False
        self.utilization = 0.0
        self.version = 0
        self._work_s = 0.0
        self._now_s = 0.0
        self._order = 0
        self._running: list[tuple[float, int, SimulatedRequest]] = []
        self._queue: deque[SimulatedRequest] = deque()

    @property
    def in_flight(self) -> int:
        """Requests that run or wait."""
        return len(self._running) + len(self._queue)

    def advance(self, now_s: float) -> None:
        """Let the running requests make progress until now."""
        passed_s = now_s - self._now_s
        self._now_s = now_s
        if passed_s <= 0.0:
            return
        busy = min(1.0, len(self._running) / self.slots)
        weight = 1.0 - math.exp(-passed_s / UTILIZATION_WINDOW_S)
        self.utilization += weight * (busy - self.utilization)
        if self._running:
            self._work_s += passed_s * self._rate()

    def _rate(self) -> float:
        """Seconds of work a second for each running request."""
        return self.speed * (min(1.0, self.slots / len(self._running)) if self.shared else 1.0)

    def add(self, request: SimulatedRequest, now_s: float) -> None:
        """Begin a request, or let it wait for a slot."""
        self.advance(now_s)
        if self.shared or len(self._running) < self.slots:
            self._start(request)
        else:
            self._queue.append(request)
        self.version += 1

    def _start(self, request: SimulatedRequest) -> None:
        self._order += 1
        done_at_work_s = self._work_s + request.size_s
        heapq.heappush(self._running, (done_at_work_s, self._order, request))

    def next_end_s(self) -> float:
        """When the next request ends, unless something changes; infinite where none runs."""
        if not self._running:
            return math.inf
        return self._now_s + max(0.0, self._running[0][0] - self._work_s) / self._rate()

    def finish(self, now_s: float) -> SimulatedRequest:
        """Take out the request that ends now."""
        self.advance(now_s)
        _, _, request = heapq.heappop(self._running)
        if self._queue:
            self._start(self._queue.popleft())
        self.version += 1
        return request

    def change_speed(self, speed: float, now_s: float) -> None:
        """Run at another speed from now on."""
        self.advance(now_s)
        self.speed = speed
        self.version += 1


class SimulatedRouter:
    """One router: its view of the fleet, its strategy, its retry budget, its late-binding queue."""

    def __init__(
        self,
        instances: Sequence[SimulatedInstance],
        strategy: str,
        routers: int,
        seed: int,
        learning: Learning,
    ) -> None:
        self.fleet = Fleet(learning, service_s=SERVICE_S, routers=routers)
        self.fleet.members = [
            Member(instance.name, instance.slots, proven=True) for instance in instances
        ]
        self.members = {member.id: member for member in self.fleet.members}
        self.strategy = STRATEGIES[strategy]()
        self.rng = random.Random(seed)
        self.retries = ExtrasBudget(RETRY_SHARE, RETRIES_SAVED)
        self.queue: deque[SimulatedRequest] = deque()


@dataclass
class SimulationLog:
    """What happened.

    Attributes:
        latencies_s: (arrival, latency) of each request; infinite where it failed.
        picks: (time, instance) of each attempt.
    """

    latencies_s: list[tuple[float, float]] = field(default_factory=list)
    picks: list[tuple[float, str]] = field(default_factory=list)

    def quantile(self, share: float, since_s: float = 0.0, until_s: float = math.inf) -> float:
        """A quantile of the latencies of arrivals in this time, in mean service times."""
        values = sorted(
            latency_s for arrived_s, latency_s in self.latencies_s if since_s <= arrived_s < until_s
        )
        if not values:
            return math.nan
        return values[min(len(values) - 1, int(share * len(values)))] / SERVICE_S

    def share(self, name: str, since_s: float, until_s: float) -> float:
        """An instance's share of the picks in this time."""
        picked = [instance for at_s, instance in self.picks if since_s <= at_s < until_s]
        return picked.count(name) / max(1, len(picked))


@dataclass(frozen=True)
class Scenario:
    """What to simulate.

    Attributes:
        speeds: of the instances.
        rate_per_s: requests a second.
        seconds: length of the arrivals.
        slots: of each instance.
        shared: processor sharing instead of queueing.
        routers: number of routers, among which requests are spread at random.
        seed: of everything.
        learning: the constants of the routers' learning.
        events: (time, action on the simulation).
        no_reports_s: load reports are not delivered between these times.
        round_trip_s: from the router to an instance and back.
    """

    speeds: tuple[float, ...]
    rate_per_s: float
    seconds: float
    slots: int = 1
    shared: bool = False
    routers: int = 1
    seed: int = 1
    learning: Learning = LEARNING
    events: tuple[tuple[float, Callable[[FleetSimulation], None]], ...] = ()
    no_reports_s: tuple[float, float] = (math.inf, math.inf)
    round_trip_s: float = 0.0


def scenario_at_load(
    speeds: tuple[float, ...],
    load: float,
    seconds: float,
    slots: int = 1,
    seed: int = 1,
    routers: int = 1,
) -> Scenario:
    """An open-loop scenario at a share of what the fleet can serve at most."""
    rate_per_s = load * sum(speeds) * slots / SERVICE_S
    return Scenario(
        speeds, rate_per_s, seconds, slots=slots, shared=slots > 1, seed=seed, routers=routers
    )


class _LatenessWatch:
    """Counts the requests of a running simulation that are late, whether answered yet or not.

    Args:
        objective_s: a request is late if it takes longer.
        failing: so many late requests are too many.
    """

    def __init__(self, objective_s: float, failing: int) -> None:
        self._objective_s = objective_s
        self._failing = failing
        self._arrived: deque[float] = deque()
        self._due = 0
        self._read = 0
        self._in_time = 0

    def has_failed(self, arrived_s: float, log: SimulationLog) -> bool:
        """Take the next arrival, and say whether too many are late already."""
        self._arrived.append(arrived_s)
        while self._arrived[0] < arrived_s - self._objective_s:
            self._arrived.popleft()
            self._due += 1
        for _, latency_s in log.latencies_s[self._read :]:
            self._read += 1
            self._in_time += latency_s <= self._objective_s
        # Some answers in time may be of requests that are not due yet: at least so many are late.
        return self._due - self._in_time >= self._failing


class FleetSimulation:
    """Runs a scenario with one strategy. Subclasses may override `arrivals` and `route`."""

    def __init__(self, scenario: Scenario, strategy: str) -> None:
        self.scenario = scenario
        self.instances = [
            self._new_instance(number, speed) for number, speed in enumerate(scenario.speeds)
        ]
        self.by_name = {instance.name: instance for instance in self.instances}
        self.routers = [
            SimulatedRouter(
                self.instances,
                strategy,
                scenario.routers,
                scenario.seed * 1000 + number,
                scenario.learning,
            )
            for number in range(scenario.routers)
        ]
        self.log = SimulationLog()
        self.now_s = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0

    def _new_instance(self, number: int, speed: float) -> SimulatedInstance:
        return SimulatedInstance(f"i{number:02d}", self.scenario.slots, speed, self.scenario.shared)

    def run(self) -> SimulationLog:
        """Serve every arrival to its end."""
        for _ in self._play(self.arrivals()):
            pass
        return self.log

    def keeps(self, objective: float, share: float = 0.99) -> bool:
        """Whether this quantile of the latencies is at most `objective`, in mean service times.

        What a whole run would say, but it ends as soon as so many requests are late that no
        answer to come can change it: an overloaded fleet takes long to simulate.
        """
        arrivals = self.arrivals()
        watch = _LatenessWatch(objective * SERVICE_S, len(arrivals) - int(share * len(arrivals)))
        for request in self._play(arrivals):
            if watch.has_failed(request.arrived_s, self.log):
                return False
        return self.log.quantile(share) <= objective

    def _play(self, arrivals: Sequence[SimulatedRequest]) -> Iterator[SimulatedRequest]:
        """Serve arrivals to their ends; each is yielded once it is routed."""
        for at_s, event in self.scenario.events:
            self.at(at_s, lambda event=event: event(self))  # type: ignore[misc]  # bound per event
        for request in arrivals:
            while self._events and self._events[0][0] <= request.arrived_s:
                self._step()
            self.now_s = request.arrived_s
            self.route(request)
            yield request
        while self._events:
            self._step()

    def at(self, at_s: float, action: Callable[[], None]) -> None:
        """Do something at a time."""
        self._order += 1
        heapq.heappush(self._events, (at_s, self._order, action))

    def _step(self) -> None:
        self.now_s, _, action = heapq.heappop(self._events)
        action()

    def arrivals(self) -> list[SimulatedRequest]:
        """Poisson arrivals with log-normal sizes, in order of time."""
        rng = random.Random(self.scenario.seed)
        now_s = 0.0
        requests: list[SimulatedRequest] = []
        while True:
            now_s += rng.expovariate(self.scenario.rate_per_s)
            if now_s >= self.scenario.seconds:
                return requests
            size_s = SERVICE_S * rng.lognormvariate(-SIZE_SIGMA * SIZE_SIGMA / 2.0, SIZE_SIGMA)
            router = self.routers[rng.randrange(len(self.routers))]
            requests.append(SimulatedRequest(now_s, size_s, router))

    def route(self, request: SimulatedRequest) -> None:
        """Send a request where its router decides, queue it there, or let it fail."""
        router = request.router
        choice = choose(
            router.fleet,
            router.strategy,
            request.features,
            self.now_s,
            router.rng,
            tried=request.tried,
        )
        if isinstance(choice, Chosen):
            self.send(request, choice.member)
        elif isinstance(choice, Queued):
            router.queue.append(request)
        else:
            self.log.latencies_s.append((request.arrived_s, math.inf))

    def send(self, request: SimulatedRequest, member: Member) -> None:
        """Send a request to an instance."""
        if not request.attempts:
            request.router.retries.earn()
        request.attempts += 1
        request.tried.add(member.id)
        request.sent_s = self.now_s
        request.router.fleet.begin(member, self.now_s)
        self.log.picks.append((self.now_s, member.id))
        instance = self.by_name[member.id]
        one_way_s = self.scenario.round_trip_s / 2
        if instance.failing:
            self.at(self.now_s + FAILURE_S, lambda: self._failed(request, member))
        elif one_way_s:
            self.at(self.now_s + one_way_s, lambda: self._arrive(request, instance))
        else:
            self._arrive(request, instance)

    def _arrive(self, request: SimulatedRequest, instance: SimulatedInstance) -> None:
        instance.add(request, self.now_s)
        self._schedule_end(instance)

    def _schedule_end(self, instance: SimulatedInstance) -> None:
        """Schedule the instance's next end; it is ignored if the instance changes before."""
        end_s = instance.next_end_s()
        if end_s < math.inf:
            version = instance.version
            self.at(end_s, lambda: self._end_if_unchanged(instance, version))

    def _end_if_unchanged(self, instance: SimulatedInstance, version: int) -> None:
        if instance.version != version:
            return
        request = instance.finish(self.now_s)
        self._schedule_end(instance)
        in_flight = instance.in_flight
        utilization = instance.utilization
        one_way_s = self.scenario.round_trip_s / 2
        if one_way_s:
            self.at(
                self.now_s + one_way_s,
                lambda: self._answered(request, instance, in_flight, utilization),
            )
        else:
            self._answered(request, instance, in_flight, utilization)

    def _answered(
        self,
        request: SimulatedRequest,
        instance: SimulatedInstance,
        in_flight: int,
        utilization: float,
    ) -> None:
        """The answer reaches the router, with the instance's load when it ended."""
        router = request.router
        member = router.members[instance.name]
        took_s = self.now_s - request.sent_s
        router.fleet.succeed(member, self.now_s, took_s, request.work)
        silent_from_s, silent_to_s = self.scenario.no_reports_s
        if not silent_from_s <= self.now_s < silent_to_s:
            member.report(in_flight, 0, utilization, self.now_s)
        answer = Answer(self.now_s, took_s, self.scenario.round_trip_s)
        router.strategy.answered(member, router.fleet, answer)
        self.log.latencies_s.append((request.arrived_s, self.now_s - request.arrived_s))
        self._route_queued(router)

    def _failed(self, request: SimulatedRequest, member: Member) -> None:
        request.router.fleet.fail(member, self.now_s, Verdict.GONE)
        if request.attempts < MAX_ATTEMPTS and request.router.retries.spend():
            self.route(request)
        else:
            self.log.latencies_s.append((request.arrived_s, math.inf))
        self._route_queued(request.router)

    def _route_queued(self, router: SimulatedRouter) -> None:
        if router.queue:
            self.route(router.queue.popleft())

    def set_speed(self, names: Sequence[str], speed: float) -> None:
        """Change the speed of instances."""
        for name in names:
            self.by_name[name].change_speed(speed, self.now_s)
            self._schedule_end(self.by_name[name])

    def add_instance(self, speed: float) -> str:
        """Add an instance of which the routers know nothing; return its name."""
        instance = self._new_instance(len(self.instances), speed)
        self.instances.append(instance)
        self.by_name[instance.name] = instance
        for router in self.routers:
            router.members[instance.name] = Member(instance.name, instance.slots, self.now_s)
            router.fleet.members.append(router.members[instance.name])
        return instance.name
