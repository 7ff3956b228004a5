"""A fleet in virtual time: arrivals, routers with the policy that serves, instances that queue or
share. Seeded; nothing waits.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from penstock.router.calls.attempts import RETRIES_SAVED
from penstock.router.instances.registry import LEARNING
from penstock.router.routing.choice import Chosen, ExtrasBudget, Queued, choose
from penstock.router.routing.fleet import Fleet, Learning, Member
from penstock.router.routing.strategies import STRATEGIES
from penstock.router.routing.strategy import Answer, RequestFeatures
from penstock.rpc.reasons import Verdict

SERVICE_S = 0.05
"""Mean service time of the fastest instance: S."""
FAIL_S = 0.001
"""How fast a failing instance fails."""
MOST_TRIES = 3


@dataclass(slots=True)
class Job:
    """One request: when it came, how much work it is in seconds at speed 1, who routes it."""

    arrived: float
    size: float
    router: Router
    tried: set[str] = field(default_factory=set)
    tries: int = 0
    sent: float = 0.0
    features: RequestFeatures = field(default_factory=RequestFeatures)
    work: float = 1.0
    mark: object = None


class Server:
    """An instance.

    `slots` requests at a time in order (`shared` false), or all at once, each at min(1, slots / n)
    (processor sharing).
    """

    def __init__(self, name: str, slots: int, speed: float, shared: bool) -> None:
        self.name = name
        self.slots = slots
        self.speed = speed
        self.shared = shared
        self.failing = False
        self.utilization = 0.0
        self.version = 0
        self.completed = 0
        self.busy_s = 0.0
        self._virtual = 0.0
        self._at = 0.0
        self._order = 0
        self._running: list[tuple[float, int, Job]] = []
        self._queue: deque[Job] = deque()

    @property
    def in_flight(self) -> int:
        return len(self._running) + len(self._queue)

    def move(self, now: float) -> None:
        """Let work be done until now."""
        passed, self._at = now - self._at, now
        if passed <= 0.0:
            return
        busy = min(1.0, len(self._running) / self.slots)
        self.busy_s += busy * passed
        self.utilization += (1.0 - math.exp(-passed / (10.0 * SERVICE_S))) * (
            busy - self.utilization
        )
        if self._running:
            self._virtual += passed * self._rate()

    def _rate(self) -> float:
        return self.speed * (min(1.0, self.slots / len(self._running)) if self.shared else 1.0)

    def add(self, job: Job, now: float) -> None:
        self.move(now)
        if self.shared or len(self._running) < self.slots:
            self._start(job)
        else:
            self._queue.append(job)
        self.version += 1

    def _start(self, job: Job) -> None:
        self._order += 1
        heapq.heappush(self._running, (self._virtual + job.size, self._order, job))

    def next_end(self) -> float:
        """When the next request is done, as things are now."""
        if not self._running:
            return math.inf
        return self._at + max(0.0, self._running[0][0] - self._virtual) / self._rate()

    def finish(self, now: float) -> Job:
        """Take out the request that is done now."""
        self.move(now)
        _, _, job = heapq.heappop(self._running)
        if self._queue:
            self._start(self._queue.popleft())
        self.version += 1
        self.completed += 1
        return job

    def change_speed(self, speed: float, now: float) -> None:
        self.move(now)
        self.speed = speed
        self.version += 1


class Router:
    """One router's view: its fleet, its strategy, its budgets, what waits in it."""

    def __init__(
        self, servers: Sequence[Server], strategy: str, routers: int, seed: int, learning: Learning
    ) -> None:
        self.fleet = Fleet(learning, service_s=SERVICE_S, routers=routers)
        self.fleet.members = [Member(server.name, server.slots, proven=True) for server in servers]
        self.members = {member.id: member for member in self.fleet.members}
        self.strategy = STRATEGIES[strategy]()
        self.rng = random.Random(seed)
        self.retries = ExtrasBudget(0.1, RETRIES_SAVED)
        self.queue: deque[Job] = deque()


@dataclass
class Log:
    """What happened: (arrival, latency) of each request, infinite where it failed; and every
    pick.
    """

    latencies: list[tuple[float, float]] = field(default_factory=list)
    picks: list[tuple[float, str]] = field(default_factory=list)

    def quantile(self, share: float, since: float = 0.0, until: float = math.inf) -> float:
        """In service times."""
        values = sorted(latency for arrived, latency in self.latencies if since <= arrived < until)
        return (
            values[min(len(values) - 1, int(share * len(values)))] / SERVICE_S
            if values
            else math.nan
        )

    def share(self, name: str, since: float, until: float) -> float:
        picked = [who for at, who in self.picks if since <= at < until]
        return picked.count(name) / max(1, len(picked))


@dataclass(frozen=True)
class World:
    """What to simulate.

    `rate` in requests a second; `events` happen at their time, given the simulation.
    """

    speeds: tuple[float, ...]
    rate: float
    seconds: float
    slots: int = 1
    shared: bool = False
    routers: int = 1
    seed: int = 1
    learning: Learning = LEARNING
    events: tuple[tuple[float, Callable[[Simulation], None]], ...] = ()
    frozen: tuple[float, float] = (math.inf, math.inf)
    """No fresh load report is delivered between these times."""
    round_trip_s: float = 0.0
    """From the router to an instance and back; half of it each way."""


def at_load(
    speeds: tuple[float, ...],
    load: float,
    seconds: float,
    slots: int = 1,
    seed: int = 1,
    routers: int = 1,
) -> World:
    """An open-loop world at a share of what the fleet can serve at most."""
    rate = load * sum(speeds) * slots / SERVICE_S
    return World(speeds, rate, seconds, slots=slots, shared=slots > 1, seed=seed, routers=routers)


class Simulation:
    """Runs a world with one strategy."""

    def __init__(self, world: World, strategy: str) -> None:
        self.world = world
        self.servers = [
            Server(f"i{number:02d}", world.slots, speed, world.shared)
            for number, speed in enumerate(world.speeds)
        ]
        self.by_name = {server.name: server for server in self.servers}
        self.routers = [
            Router(
                self.servers, strategy, world.routers, world.seed * 1000 + number, world.learning
            )
            for number in range(world.routers)
        ]
        self.log = Log()
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0

    def run(self) -> Log:
        """Serve every arrival to its end."""
        for at, event in self.world.events:
            self.at(at, lambda event=event: event(self))  # type: ignore[misc]
        for arrival in self._arrivals():
            while self._heap and self._heap[0][0] <= arrival.arrived:
                self._step()
            self.now = arrival.arrived
            self._route(arrival)
        while self._heap:
            self._step()
        return self.log

    def at(self, when: float, what: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._heap, (when, self._order, what))

    def _step(self) -> None:
        self.now, _, what = heapq.heappop(self._heap)
        what()

    def _arrivals(self) -> list[Job]:
        rng, now = random.Random(self.world.seed), 0.0
        jobs: list[Job] = []
        sigma = math.sqrt(math.log(2.0))
        while True:
            now += rng.expovariate(self.world.rate)
            if now >= self.world.seconds:
                return jobs
            size = SERVICE_S * rng.lognormvariate(-sigma * sigma / 2.0, sigma)
            jobs.append(Job(now, size, self.routers[rng.randrange(len(self.routers))]))

    def _route(self, job: Job) -> None:
        router = job.router
        choice = choose(
            router.fleet, router.strategy, job.features, self.now, router.rng, tried=job.tried
        )
        if isinstance(choice, Chosen):
            self._send(job, choice.member)
        elif isinstance(choice, Queued):
            router.queue.append(job)
        else:
            self.log.latencies.append((job.arrived, math.inf))

    def _send(self, job: Job, member: Member) -> None:
        if not job.tries:
            job.router.retries.earn()
        job.tries += 1
        job.tried.add(member.id)
        job.sent = self.now
        job.router.fleet.begin(member, self.now)
        self.log.picks.append((self.now, member.id))
        server = self.by_name[member.id]
        if server.failing:
            self.at(self.now + FAIL_S, lambda: self._failed(job, member))
        elif self.world.round_trip_s:
            self.at(self.now + self.world.round_trip_s / 2, lambda: self._arrive(job, server))
        else:
            self._arrive(job, server)

    def _arrive(self, job: Job, server: Server) -> None:
        server.add(job, self.now)
        self._watch(server)

    def _watch(self, server: Server) -> None:
        """See the server's next end; a later change makes this look stale, and then it does
        nothing.
        """
        end = server.next_end()
        if end < math.inf:
            version = server.version
            self.at(end, lambda: self._ended(server) if server.version == version else None)

    def _ended(self, server: Server) -> None:
        job = server.finish(self.now)
        self._watch(server)
        in_flight, utilization = server.in_flight, server.utilization
        if self.world.round_trip_s:
            back = self.now + self.world.round_trip_s / 2
            self.at(back, lambda: self._answered(job, server, in_flight, utilization))
        else:
            self._answered(job, server, in_flight, utilization)

    def _answered(self, job: Job, server: Server, in_flight: int, utilization: float) -> None:
        router, took_s = job.router, self.now - job.sent
        member = router.members[server.name]
        router.fleet.succeed(member, self.now, took_s, job.work)
        if not self.world.frozen[0] <= self.now < self.world.frozen[1]:
            member.report(in_flight, 0, utilization, self.now)
        answer = Answer(self.now, took_s, self.world.round_trip_s)
        router.strategy.answered(member, router.fleet, answer)
        self.log.latencies.append((job.arrived, self.now - job.arrived))
        self._release(job.router)

    def _failed(self, job: Job, member: Member) -> None:
        job.router.fleet.fail(member, self.now, Verdict.GONE)
        if job.tries < MOST_TRIES and job.router.retries.spend():
            self._route(job)
        else:
            self.log.latencies.append((job.arrived, math.inf))
        self._release(job.router)

    def _release(self, router: Router) -> None:
        if router.queue:
            self._route(router.queue.popleft())

    def slow(self, names: Sequence[str], speed: float) -> None:
        for name in names:
            self.by_name[name].change_speed(speed, self.now)
            self._watch(self.by_name[name])

    def join(self, speed: float) -> str:
        """A new instance, known to nobody."""
        server = Server(f"i{len(self.servers):02d}", self.world.slots, speed, self.world.shared)
        self.servers.append(server)
        self.by_name[server.name] = server
        for router in self.routers:
            router.members[server.name] = Member(server.name, server.slots, self.now)
            router.fleet.members.append(router.members[server.name])
        return server.name
