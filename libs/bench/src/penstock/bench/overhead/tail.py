"""The tail of misses on the real model, beside that of a queue with the same service times.

A whole `make up` as a cell with its instances of the encoder, each of one compute thread. The
queue's c is the number of these instances. Service times are the latencies of so many callers as
there are instances, each of which waits for its answer: no call then waits for another, and what
the path itself takes is in them. By Little's law those callers' rate is c ÷ the mean service time,
which is the capacity of the queue. Poisson arrivals at 70 % of it are then sent to both: to the
stack for some seconds, and to the simulated queue. Latencies are counted from the moment at which a
call was due. A round has several turns of both; texts have 5 to 60 words, and none is sent twice.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from penstock.api.router.v1 import router_pb2
from penstock.bench.harness.intervals import bootstrap, medians
from penstock.bench.harness.load import Send, closed_loop, quantile
from penstock.bench.harness.parts import Part
from penstock.bench.harness.report import Bound, Table
from penstock.bench.overhead.at_rest import whole_stack
from penstock.bench.overhead.queue_model import queue_latencies_ms
from penstock.bench.overhead.stacks import TENANT
from penstock.cli.load.open_loop import due_times_s
from penstock.models.samples import SAMPLE_TEXTS
from penstock.stack.plan import DEFAULT_MODEL
from penstock.stack.stack import Stack

LOAD = 0.7
ROUNDS, TURNS = 7, 4
SERVICE_S, ARRIVALS_S = 2.0, 5.0
MANY_CALLERS = 16
WARM_UP_S = 3.0
SIMULATED = 100_000
MIN_WORDS, MAX_WORDS = 5, 60
SEED = 20_261_129
BOUNDS = {"p99_vs_queue_model": Bound("<=", 1.5)}


class TailRound(NamedTuple):
    """One round: calls a second, and milliseconds."""

    capacity_rps: float
    rps_16: float
    """Of 16 callers, to compare: what follows one answer then overlaps with the next call."""
    service_mean_ms: float
    service_p99_ms: float
    poisson_p50_ms: float
    poisson_p99_ms: float
    queue_p50_ms: float
    queue_p99_ms: float

    def figures(self) -> dict[str, float]:
        """What it says of each figure."""
        return {
            "p99_vs_queue_model": self.poisson_p99_ms / self.queue_p99_ms,
            "p50_vs_queue_model": self.poisson_p50_ms / self.queue_p50_ms,
            **{f"tail_{name}": value for name, value in self._asdict().items()},
        }


async def measure_tail(*, quick: bool) -> Part:
    """Measure service times and arrivals in turns, and simulate the queue of each round."""
    rounds, turns = (2, 1) if quick else (ROUNDS, TURNS)
    rng, chance = random.Random(SEED), np.random.default_rng(SEED)
    async with whole_stack(chat=False) as stack:
        servers = stack.plan.instances
        send = misses_of_texts(stack, rng)
        await closed_loop(send, MANY_CALLERS, WARM_UP_S)
        rows = []
        for _ in range(rounds):
            measured = [await _turn(send, servers, rng) for _ in range(turns)]
            service_ms = [ms for turn in measured for ms in turn.service_ms]
            queue_ms = queue_latencies_ms(service_ms, servers, LOAD, SIMULATED, chance)
            rows.append(_round(measured, servers, queue_ms))
    figures = [row.figures() for row in rows]
    table = Table("misses on the real model, and the queue's", TailRound._fields, tuple(rows))
    context = {"queue_servers": servers, "queue_load": LOAD}
    return Part(medians(figures), context, (table,), bootstrap(figures, medians, "rounds"))


class _Turn(NamedTuple):
    service_ms: list[float]
    poisson_ms: list[float]
    rps_16: float


async def _turn(send: Send, servers: int, rng: random.Random) -> _Turn:
    """Service times, then arrivals at the rate that follows from them: what others do on the
    machine changes with time, so the two are close to each other.
    """
    served = await closed_loop(send, servers, SERVICE_S)
    many = await closed_loop(send, MANY_CALLERS, SERVICE_S / 2)
    service_ms = list(served.latencies_ms.values())
    rate = LOAD * servers / statistics.fmean(service_ms) * 1e3
    return _Turn(service_ms, await _poisson_ms(send, rate, rng), many.rps)


def _round(turns: Sequence[_Turn], servers: int, queue_ms: Sequence[float]) -> TailRound:
    service_ms = [ms for turn in turns for ms in turn.service_ms]
    poisson_ms = [ms for turn in turns for ms in turn.poisson_ms]
    mean_ms = statistics.fmean(service_ms)
    return TailRound(
        capacity_rps=servers / mean_ms * 1e3,
        rps_16=statistics.fmean(turn.rps_16 for turn in turns),
        service_mean_ms=mean_ms,
        service_p99_ms=quantile(service_ms, 0.99),
        poisson_p50_ms=quantile(poisson_ms, 0.5),
        poisson_p99_ms=quantile(poisson_ms, 0.99),
        queue_p50_ms=quantile(queue_ms, 0.5),
        queue_p99_ms=quantile(queue_ms, 0.99),
    )


async def _poisson_ms(send: Send, rate: float, rng: random.Random) -> list[float]:
    """Milliseconds from the moment at which each call was due to its answer."""
    took_ms: list[float] = []
    began_s = time.perf_counter()

    async def timed(number: int, due_s: float) -> None:
        await send(number)
        took_ms.append((time.perf_counter() - began_s - due_s) * 1e3)

    async with asyncio.TaskGroup() as calls:
        for number, due_s in enumerate(due_times_s(rate, ARRIVALS_S, "poisson", rng)):
            await asyncio.sleep(max(0.0, began_s + due_s - time.perf_counter()))
            calls.create_task(timed(number, due_s))
    return took_ms


def misses_of_texts(stack: Stack, rng: random.Random) -> Send:
    """Sends texts of many lengths that were never sent."""
    words = [word for text in SAMPLE_TEXTS for word in text.split()]
    options = router_pb2.CallOptions(model=DEFAULT_MODEL)
    metadata = stack.metadata(TENANT)
    numbers = itertools.count()

    async def miss(_: int) -> object:
        chosen = rng.choices(words, k=rng.randint(MIN_WORDS, MAX_WORDS))
        text = f"{next(numbers)} {' '.join(chosen)}"
        request = router_pb2.EmbedRequest(options=options, texts=[text])
        return await stack.router.Embed(request, metadata=metadata)

    return miss
