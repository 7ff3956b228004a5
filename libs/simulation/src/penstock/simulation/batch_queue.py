"""One worker in virtual time: requests arrive, a queue discipline orders and groups them.

The time of a batch is `base + per_token · rows · longest` milliseconds, as on a model that pads.
"""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from penstock.batcher.queue.batch_formation import BatchLimits, form_batch
from penstock.batcher.queue.fair_queue import FairQueue
from penstock.batcher.queue.instance_profile import CostModel
from penstock.batcher.queue.requests import CRITICAL, HIGH, LOW, NORMAL, WorkItem

DEADLINES_S = {CRITICAL: 0.2, HIGH: 1.0, NORMAL: 2.0, LOW: 4.0}
PRIORITY_SHARES = {CRITICAL: 0.1, HIGH: 0.2, NORMAL: 0.3, LOW: 0.4}
TENANTS = 11
BUSY_TENANT_WEIGHT = 10.0
"""Tenant 0 sends ten times what each of the others sends."""
MEDIAN_TOKENS, P99_TOKENS, MAX_TOKENS = 24, 200, 2000
P99_SIGMAS = 2.326
"""The 99th percentile of a normal distribution, in standard deviations."""
FIRST_COME_BATCHES = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class CostShape:
    """What a batch costs, and the batcher's limits for it.

    Attributes:
        name: for people.
        base_ms: milliseconds of any batch.
        per_token_ms: milliseconds of each padded token.
        queue: requests that may wait.
        look_ahead: waiting requests among which a batch is formed.
        rows: rows of a batch at most.
        batch_ms: predicted milliseconds of a batch at most.
        urgent_batch_ms: the same for a batch with critical requests.
    """

    name: str
    base_ms: float
    per_token_ms: float
    queue: int
    look_ahead: int
    rows: int
    batch_ms: float
    urgent_batch_ms: float

    def cost(self) -> CostModel:
        """The batcher's own cost model with these constants."""
        return CostModel(self.base_ms, self.per_token_ms)


CPU = CostShape("cpu", 1.0, 0.19, 256, 64, 32, 12.0, 8.0)
GPU = CostShape("gpu", 8.0, 0.004, 1024, 512, 64, 14.0, 14.0)


@dataclass
class Served:
    """What became of the requests.

    Attributes:
        finished_s: finish time by id, for those that were served.
        batches: each batch with the number of requests that waited when it was formed.
        ended_s: end of the last batch.
    """

    finished_s: dict[int, float] = field(default_factory=dict)
    batches: list[tuple[int, list[WorkItem]]] = field(default_factory=list)
    ended_s: float = 0.0


class QueueDiscipline(ABC):
    """Holds waiting requests and chooses what runs next."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of waiting requests."""

    @abstractmethod
    def push(self, entry: WorkItem) -> None:
        """Take a request; what does not fit is dropped."""

    @abstractmethod
    def next_batch(self, now_s: float) -> list[WorkItem]:
        """The requests to run now; empty to wait."""

    def wake_s(self) -> float:
        """When `next_batch` is due although nothing arrives; infinite where it never waits."""
        return math.inf


class FairBatching(QueueDiscipline):
    """The fair queue and batch formation of the serving batcher."""

    def __init__(self, shape: CostShape) -> None:
        self._shape = shape
        self._cost = shape.cost()
        self._fair_queue = FairQueue()

    def __len__(self) -> int:
        return len(self._fair_queue)

    def push(self, entry: WorkItem) -> None:
        """Take a request; where the queue is full, the longest flow loses its newest."""
        is_full = len(self._fair_queue) >= self._shape.queue
        if is_full and (victim := self._fair_queue.drop_candidate()):
            self._fair_queue.remove(victim.id)
        self._fair_queue.push(entry)

    def next_batch(self, now_s: float) -> list[WorkItem]:
        """A batch by priority, fairness and predicted cost."""
        self._fair_queue.pop_expired(now_s)
        limits = BatchLimits(
            self._shape.rows, 1 << 20, self._shape.batch_ms, self._shape.urgent_batch_ms
        )
        batch = form_batch(self._fair_queue.in_order(self._shape.look_ahead), self._cost, limits)
        for entry in batch:
            self._fair_queue.take(entry)
            self._fair_queue.observe_wait(entry, now_s)
        return batch


class FirstCome(QueueDiscipline):
    """First come, first served, in batches of at most `size`.

    Requests that cannot meet their deadline are dropped, a full queue refuses new ones.
    """

    def __init__(self, shape: CostShape, size: int) -> None:
        self._shape = shape
        self._size = size
        self._queue: deque[WorkItem] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    def push(self, entry: WorkItem) -> None:
        """Take a request where there is room."""
        if len(self._queue) < self._shape.queue:
            self._queue.append(entry)

    def next_batch(self, now_s: float) -> list[WorkItem]:
        """The oldest requests that are not too late."""
        batch: list[WorkItem] = []
        while self._queue and len(batch) < self._size:
            entry = self._queue.popleft()
            if entry.deadline_s > now_s:
                batch.append(entry)
        return batch


class FixedWindow(FirstCome):
    """First come, first served; a batch that is not full waits for `window_s`.

    The wait is counted from the arrival of the oldest request.
    """

    def __init__(self, shape: CostShape, size: int, window_s: float) -> None:
        super().__init__(shape, size)
        self._window_s = window_s

    def wake_s(self) -> float:
        """The end of the oldest request's window."""
        return self._queue[0].arrived_s + self._window_s if self._queue else math.inf

    def next_batch(self, now_s: float) -> list[WorkItem]:
        """A full batch, or what there is at the end of the window."""
        is_full = len(self._queue) >= self._size
        if not is_full and now_s + 1e-12 < self.wake_s():
            return []
        return super().next_batch(now_s)


def simulate(arrivals: Sequence[WorkItem], discipline: QueueDiscipline, shape: CostShape) -> Served:
    """Run a worker over the arrivals, given in order of time, until no request is left."""
    cost = shape.cost()
    served = Served()
    now_s = 0.0
    index = 0
    while index < len(arrivals) or len(discipline):
        while index < len(arrivals) and arrivals[index].arrived_s <= now_s:
            discipline.push(arrivals[index])
            index += 1
        waiting = len(discipline)
        batch = discipline.next_batch(now_s)
        if not batch:
            arrival_s = arrivals[index].arrived_s if index < len(arrivals) else math.inf
            next_s = min(arrival_s, discipline.wake_s())
            if math.isfinite(next_s):
                now_s = max(now_s, next_s)
            continue
        served.batches.append((waiting, batch))
        now_s += cost.predict_ms(len(batch), max(entry.tokens for entry in batch)) / 1e3
        for entry in batch:
            served.finished_s[entry.id] = now_s
    served.ended_s = now_s
    return served


Lengths = Callable[[random.Random], int]
"""Draws the tokens of a request."""


def log_normal_length(rng: random.Random) -> int:
    """Tokens of a request: log-normal with a median of 24 and a 99th percentile of 200."""
    sigma = math.log(P99_TOKENS / MEDIAN_TOKENS) / P99_SIGMAS
    return max(1, min(MAX_TOKENS, round(MEDIAN_TOKENS * math.exp(rng.gauss(0, sigma)))))


def requests_at(
    instants_s: Iterable[float],
    shape: CostShape,
    rng: random.Random,
    priority_shares: dict[int, float] | None = None,
    lengths: Lengths = log_normal_length,
) -> list[WorkItem]:
    """Requests at these instants, with drawn priority, tokens and tenant.

    A request's deadline is the last moment at which it can be begun and still be in time.
    """
    shares = priority_shares or PRIORITY_SHARES
    cost = shape.cost()
    tenant_weights = [BUSY_TENANT_WEIGHT, *[1.0] * (TENANTS - 1)]
    requests = []
    for number, instant_s in enumerate(instants_s):
        priority = rng.choices(list(shares), list(shares.values()))[0]
        tokens = lengths(rng)
        begin_by_s = instant_s + DEADLINES_S[priority] - cost.predict_ms(1, tokens) / 1e3
        tenant = str(rng.choices(range(TENANTS), tenant_weights)[0])
        requests.append(WorkItem(number, priority, tenant, "m", 1, tokens, instant_s, begin_by_s))
    return requests


def poisson(rate_per_s: float, count: int, rng: random.Random) -> list[float]:
    """`count` instants of a Poisson process, in seconds."""
    now_s = 0.0
    instants_s = []
    for _ in range(count):
        now_s += rng.expovariate(rate_per_s)
        instants_s.append(now_s)
    return instants_s


def best_first_come(shape: CostShape, make: Callable[[], list[WorkItem]]) -> tuple[int, float]:
    """The batch size with which first come serves the most tokens a second, and that rate.

    `make` gives the same saturating requests each time.
    """
    rates = {}
    for size in FIRST_COME_BATCHES:
        arrivals = make()
        served = simulate(arrivals, FirstCome(shape, size), shape)
        rates[size] = tokens_per_s(served, arrivals)
    best = max(rates, key=lambda size: rates[size])
    return best, rates[best]


def tokens_per_s(served: Served, arrivals: Sequence[WorkItem]) -> float:
    """Tokens of the served requests a second."""
    tokens = sum(entry.tokens for entry in arrivals if entry.id in served.finished_s)
    return tokens / served.ended_s
