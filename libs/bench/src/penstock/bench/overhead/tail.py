"""The tail of misses on the real model, beside that of a queue with the same service times.

A whole `make up` as a cell with its instances of the encoder, each of one compute thread. The
queue's c is the number of these instances. Service times are the latencies of so many callers as
there are instances, each of which waits for its answer: no call then waits for another, and what
the path itself takes is in them. By Little's law those callers' rate is c ÷ the mean service time,
which is the capacity of the queue. Poisson arrivals at 70 % of it are then sent to both: to the
stack for some seconds, and to the simulated queue. Latencies are counted from the moment at which a
call was due. Rounds of both take turns; texts have 5 to 60 words, and none is sent twice.
"""

from __future__ import annotations

import itertools
import random
import statistics
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
from penstock.cli.load.histogram import Histogram
from penstock.cli.load.open_loop import due_times_s, run_open_loop
from penstock.models.samples import SAMPLE_TEXTS
from penstock.service.clock import SystemClock
from penstock.stack.plan import DEFAULT_MODEL
from penstock.stack.stack import Stack

LOAD = 0.7
ROUNDS, SERVICE_S, ARRIVALS_S = 7, 6.0, 20.0
MANY_CALLERS = 16
WARM_UP_S = 3.0
SIMULATED = 100_000
MAX_IN_FLIGHT = 2_000
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
    rounds, service_s, arrivals_s = (2, 0.5, 1.0) if quick else (ROUNDS, SERVICE_S, ARRIVALS_S)
    rng, chance = random.Random(SEED), np.random.default_rng(SEED)
    async with whole_stack(chat=False) as stack:
        send = misses_of_texts(stack, rng)
        await closed_loop(send, MANY_CALLERS, WARM_UP_S)
        rows = []
        for _ in range(rounds):
            served = await closed_loop(send, stack.plan.instances, service_s)
            saturated = await closed_loop(send, MANY_CALLERS, service_s / 2)
            service_ms = list(served.latencies_ms.values())
            capacity_rps = stack.plan.instances / statistics.fmean(service_ms) * 1e3
            poisson = await _poisson(send, LOAD * capacity_rps, arrivals_s, rng)
            queue_ms = queue_latencies_ms(service_ms, stack.plan.instances, LOAD, SIMULATED, chance)
            row = TailRound(
                capacity_rps=capacity_rps,
                rps_16=saturated.rps,
                service_mean_ms=statistics.fmean(service_ms),
                service_p99_ms=quantile(service_ms, 0.99),
                poisson_p50_ms=poisson.quantile_ms(0.5),
                poisson_p99_ms=poisson.quantile_ms(0.99),
                queue_p50_ms=quantile(queue_ms, 0.5),
                queue_p99_ms=quantile(queue_ms, 0.99),
            )
            rows.append(row)
        instances = stack.plan.instances
    figures = [row.figures() for row in rows]
    table = Table("misses on the real model, and the queue's", TailRound._fields, tuple(rows))
    context = {"queue_servers": instances, "queue_load": LOAD}
    return Part(medians(figures), context, (table,), bootstrap(figures, medians, "rounds"))


async def _poisson(send: Send, rate: float, seconds: float, rng: random.Random) -> Histogram:
    """Milliseconds from the moment at which a call was due to its answer.

    Raises:
        RuntimeError: a call failed or was not sent.
    """
    due_s = due_times_s(rate, seconds, "poisson", rng)
    result = await run_open_loop(send, due_s, SystemClock(), MAX_IN_FLIGHT)
    if result.failures or result.skipped:
        raise RuntimeError(f"{result.failures.total()} calls failed, {result.skipped} not sent")
    return result.latencies


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
