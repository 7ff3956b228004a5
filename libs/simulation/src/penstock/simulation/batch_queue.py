"""One worker in virtual time: requests arrive, a discipline orders and groups them, a cost says how
long a batch takes.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from penstock.batcher.batch_formation import BatchLimits, form_batch
from penstock.batcher.cost_model import CostModel
from penstock.batcher.fair_queue import FairQueue
from penstock.batcher.work_item import CRITICAL, HIGH, LOW, NORMAL, WorkItem

DEADLINES_S = {CRITICAL: 0.2, HIGH: 1.0, NORMAL: 2.0, LOW: 4.0}
MIX = {CRITICAL: 0.1, HIGH: 0.2, NORMAL: 0.3, LOW: 0.4}
TENANTS = 11
"""Tenant 0 sends ten times what each of the others sends."""


@dataclass(frozen=True)
class Shape:
    """A cost shape: t = base + per_token · rows · longest milliseconds, and what the batcher is
    told of it.
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
        return CostModel(self.base_ms, self.per_token_ms)


CPU = Shape("cpu", 1.0, 0.19, 256, 64, 32, 12.0, 8.0)
GPU = Shape("gpu", 8.0, 0.004, 1024, 512, 64, 14.0, 14.0)


@dataclass
class Done:
    """What became of the requests: finish time by id for those served, and the batches."""

    finished_s: dict[int, float] = field(default_factory=dict)
    batches: list[tuple[int, list[WorkItem]]] = field(default_factory=list)
    ended_s: float = 0.0


class Discipline(Protocol):
    """Holds what waits and says what runs next."""

    def push(self, entry: WorkItem) -> None: ...

    def next_batch(self, now: float) -> list[WorkItem]: ...

    def wake_s(self) -> float:
        """When it wants to be asked again although nothing arrives; infinite where it never
        waits.
        """
        ...

    def __len__(self) -> int: ...


class Prompt:
    """A discipline that never waits for company."""

    def wake_s(self) -> float:
        return math.inf


class Ours(Prompt):
    """The serving code's own scheduler and batch former."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._cost = shape.cost()
        self._scheduler = FairQueue()

    def __len__(self) -> int:
        return len(self._scheduler)

    def push(self, entry: WorkItem) -> None:
        if len(self._scheduler) >= self._shape.queue and (
            victim := self._scheduler.drop_candidate()
        ):
            self._scheduler.remove(victim.id)
        self._scheduler.push(entry)

    def next_batch(self, now: float) -> list[WorkItem]:
        self._scheduler.pop_expired(now)
        limits = BatchLimits(
            self._shape.rows, 1 << 20, self._shape.batch_ms, self._shape.urgent_batch_ms
        )
        batch = form_batch(self._scheduler.in_order(self._shape.look_ahead), self._cost, limits)
        for entry in batch:
            self._scheduler.take(entry)
            self._scheduler.codel.observe(now - entry.arrived_s, now)
        return batch


class Fifo(Prompt):
    """First come, first served in batches of at most `size`; what cannot meet its deadline is
    dropped, a full queue refuses newcomers.
    """

    def __init__(self, shape: Shape, size: int) -> None:
        self._shape = shape
        self._size = size
        self._queue: deque[WorkItem] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    def push(self, entry: WorkItem) -> None:
        if len(self._queue) < self._shape.queue:
            self._queue.append(entry)

    def next_batch(self, now: float) -> list[WorkItem]:
        batch: list[WorkItem] = []
        while self._queue and len(batch) < self._size:
            entry = self._queue.popleft()
            if entry.deadline_s > now:
                batch.append(entry)
        return batch


class Window(Fifo):
    """First come, first served, but a batch that is not full waits until its oldest request is
    `window_s` old.
    """

    def __init__(self, shape: Shape, size: int, window_s: float) -> None:
        super().__init__(shape, size)
        self._window_s = window_s

    def wake_s(self) -> float:
        return self._queue[0].arrived_s + self._window_s if self._queue else math.inf

    def next_batch(self, now: float) -> list[WorkItem]:
        if len(self._queue) < self._size and now + 1e-12 < self.wake_s():
            return []
        return super().next_batch(now)


def simulate(arrivals: Sequence[WorkItem], discipline: Discipline, shape: Shape) -> Done:
    """Run a worker over the arrivals, in order of their time, until all have ended."""
    cost, done, now, index = shape.cost(), Done(), 0.0, 0
    while index < len(arrivals) or len(discipline):
        while index < len(arrivals) and arrivals[index].arrived_s <= now:
            discipline.push(arrivals[index])
            index += 1
        waiting = len(discipline)
        batch = discipline.next_batch(now)
        if not batch:
            arrival_s = arrivals[index].arrived_s if index < len(arrivals) else math.inf
            next_s = min(arrival_s, discipline.wake_s())
            if math.isfinite(next_s):
                now = max(now, next_s)
            continue
        done.batches.append((waiting, batch))
        now += cost.predict_ms(len(batch), max(entry.tokens for entry in batch)) / 1e3
        for entry in batch:
            done.finished_s[entry.id] = now
    done.ended_s = now
    return done


def length(rng: random.Random) -> int:
    """Tokens of a request: lognormal, median 24, 99th percentile 200."""
    return max(1, min(2000, round(24 * math.exp(rng.gauss(0, math.log(200 / 24) / 2.326)))))


Lengths = Callable[[random.Random], int]


def entries(
    instants: Iterable[float],
    shape: Shape,
    rng: random.Random,
    mix: dict[int, float] | None = None,
    lengths: Lengths = length,
) -> list[WorkItem]:
    """Requests at these instants: class by `mix`, tenant with the first one ten times as busy,
    length by `lengths`.

    The deadline is the last moment at which a request can be begun and still be in time.
    """
    mix = mix or MIX
    cost = shape.cost()
    weights = [10.0, *[1.0] * (TENANTS - 1)]
    out = []
    for number, instant in enumerate(instants):
        priority = rng.choices(list(mix), list(mix.values()))[0]
        tokens = lengths(rng)
        begin_by_s = instant + DEADLINES_S[priority] - cost.predict_ms(1, tokens) / 1e3
        tenant = str(rng.choices(range(TENANTS), weights)[0])
        out.append(WorkItem(number, priority, tenant, "m", 1, tokens, instant, begin_by_s))
    return out


def poisson(rate: float, count: int, rng: random.Random) -> list[float]:
    """`count` instants of a Poisson process of `rate` a second."""
    now, out = 0.0, []
    for _ in range(count):
        now += rng.expovariate(rate)
        out.append(now)
    return out


def best_fifo(shape: Shape, make: Callable[[], list[WorkItem]]) -> tuple[int, float]:
    """The batch size with which first-come serves the most tokens a second, and that rate, under
    saturation.
    """
    rates = {}
    for size in (1, 2, 4, 8, 16, 32, 64):
        arrivals = make()
        done = simulate(arrivals, Fifo(shape, size), shape)
        rates[size] = (
            sum(entry.tokens for entry in arrivals if entry.id in done.finished_s) / done.ended_s
        )
    best = max(rates, key=lambda size: rates[size])
    return best, rates[best]
