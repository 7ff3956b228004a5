"""Priorities and fairness in virtual time, with the serving code's own scheduler and batch former,
at twice the best first-come capacity.

CPU cost shape (1 ms + 0.19 ms a padded token). Classes 16/8/4/1 with deadlines 0.2, 1, 2 and 4 s;
one of eleven tenants sends ten times what another sends. The baseline is first come, first served
with the batch size that serves the most tokens, dropping what is too late. Each figure is the
median over the seeds; the gain at peak is the lesser of Poisson and bursty arrivals.
"""

from __future__ import annotations

import asyncio
import csv
import random
import statistics
from collections.abc import Sequence
from datetime import datetime
from functools import partial

from penstock.api.batcher.v1 import batcher_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.batcher.fair_queue import DEFAULT_WEIGHTS
from penstock.batcher.work_item import CRITICAL, LOW, WorkItem
from penstock.bench.batching.benchmark import MODEL, batcher_rig
from penstock.bench.batching.texts import sample_texts
from penstock.bench.harness.echo import EchoAddresses, echo_process
from penstock.bench.harness.load import closed_loop, quantile
from penstock.bench.harness.options import Options
from penstock.bench.harness.report import Bound, Result, Table
from penstock.rpc.call import Call
from penstock.service.program import loop_factory
from penstock.simulation.batch_queue import (
    CPU,
    DEADLINES_S,
    TENANTS,
    Done,
    Fifo,
    Ours,
    Shape,
    best_fifo,
    entries,
    poisson,
    simulate,
)

SEEDS = (1, 2, 3, 4, 5)
OVERLOAD = 2.0
LOW_CALLERS = 24


def run(options: Options) -> Result:
    count = 3_000 if options.quick else 20_000
    seeds = SEEDS[:2] if options.quick else SEEDS
    rows = [_one_seed(seed, count, options) for seed in seeds]
    figures = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    bounds = {
        "high_p99_vs_solo": Bound("<=", 1.5),
        "high_mean_cut_vs_fifo": Bound(">=", 0.85),
        "throughput_vs_fifo": Bound(">=", 1.0),
        "high_served_gain_at_peak": Bound(">=", 0.70),
        "low_share_of_floor": Bound(">=", 0.98),
        "jain_index": Bound(">=", 0.97),
        "worst_victim": Bound(">=", 0.85),
    }
    table = Table("By seed", tuple(rows[0]), tuple(tuple(row.values()) for row in rows))
    context = {
        "data": options.source("azure-llm-2023") + " (instants of the bursty run)",
        "seeds": list(seeds),
        "requests": count,
    }
    with echo_process() as echo, asyncio.Runner(loop_factory=loop_factory()) as runner:
        figures |= runner.run(_real(options, echo))
    notes = (
        (
            "`real_*`: real processes, the shipped model; one critical caller alone, then among "
            f"{LOW_CALLERS} callers of low priority."
        ),
        "A batch that runs is not interrupted, so an urgent request may wait for one.",
    )
    return Result(figures, bounds, context, (table,), notes=notes)


async def _real(options: Options, echo: EchoAddresses) -> dict[str, float]:
    """Latency of one critical caller alone and under a flood of low work, and the flood's own, in
    one run for each round.
    """
    rounds, seconds = (1, 0.8) if options.quick else (5, 3.0)
    texts = sample_texts(options)
    rows = []
    async with batcher_rig(echo) as rig:

        async def ask(priority: int, number: int) -> object:
            task = inference_pb2.Task(
                embed=inference_pb2.EmbedTask(texts=[texts[number % len(texts)]])
            )
            request = batcher_pb2.ComputeRequest(instance_id="real", model=MODEL, task=task)
            return await rig.peer.call("Compute", request, Call(priority=priority))

        for _ in range(rounds):
            solo = await closed_loop(partial(ask, CRITICAL), 1, seconds)
            urgent, low = await asyncio.gather(
                closed_loop(partial(ask, CRITICAL), 1, seconds),
                closed_loop(partial(ask, LOW), LOW_CALLERS, seconds),
            )
            rows.append((urgent.p50_ms() / solo.p50_ms(), urgent.p50_ms() / low.p50_ms()))
    return {
        "real_high_p50_vs_solo": statistics.median(row[0] for row in rows),
        "real_high_p50_vs_low": statistics.median(row[1] for row in rows),
    }


def _one_seed(seed: int, count: int, options: Options) -> dict[str, float]:
    shape = CPU
    size, tokens_per_s = best_fifo(
        shape,
        lambda: entries(poisson(2_000, 4_000, random.Random(seed)), shape, random.Random(seed)),
    )
    mean_tokens = statistics.mean(
        entry.tokens for entry in entries(range(4_000), shape, random.Random(seed))
    )
    rate = OVERLOAD * tokens_per_s / mean_tokens
    arrivals = entries(poisson(rate, count, random.Random(seed)), shape, random.Random(seed))
    bursty = entries(_bursty(options, rate, count, seed), shape, random.Random(seed))
    ours, fifo = (
        simulate(arrivals, Ours(shape), shape),
        simulate(arrivals, Fifo(shape, size), shape),
    )
    ours_bursty, fifo_bursty = (
        simulate(bursty, Ours(shape), shape),
        simulate(bursty, Fifo(shape, size), shape),
    )
    urgent = [entry for entry in arrivals if entry.priority == CRITICAL]
    solo = simulate(urgent, Ours(shape), shape)
    gains = [
        _in_time(a, arrived) - _in_time(b, arrived)
        for a, b, arrived in ((ours, fifo, arrivals), (ours_bursty, fifo_bursty, bursty))
    ]
    jain, victim = _fairness(seed, count, shape, rate)
    return {
        "high_p99_vs_solo": _p99_s(ours, urgent) / _p99_s(solo, urgent),
        "high_solo_p99_ms": _p99_s(solo, urgent) * 1e3,
        "high_mean_cut_vs_fifo": 1 - _mean_s(ours, urgent) / _mean_s(fifo, urgent),
        "throughput_vs_fifo": _rate(ours, arrivals) / _rate(fifo, arrivals),
        "high_served_gain_at_peak": min(gains),
        "low_share_of_floor": _low_share(seed, count, shape, rate),
        "jain_index": jain,
        "worst_victim": victim,
        "best_fifo_batch": float(size),
    }


def _latency_s(done: Done, entry: WorkItem) -> float:
    finished = done.finished_s.get(entry.id)
    return float("inf") if finished is None else finished - entry.arrived_s


def _p99_s(done: Done, arrived: Sequence[WorkItem]) -> float:
    """Dropped requests count as infinite."""
    return quantile([_latency_s(done, entry) for entry in arrived], 0.99)


def _mean_s(done: Done, arrived: Sequence[WorkItem]) -> float:
    """Dropped requests count as their deadline."""
    return statistics.mean(
        min(_latency_s(done, entry), DEADLINES_S[entry.priority]) for entry in arrived
    )


def _in_time(done: Done, arrived: Sequence[WorkItem]) -> float:
    urgent = [entry for entry in arrived if entry.priority == CRITICAL]
    return sum(_latency_s(done, entry) <= DEADLINES_S[CRITICAL] + 1e-9 for entry in urgent) / len(
        urgent
    )


def _rate(done: Done, arrived: Sequence[WorkItem]) -> float:
    return sum(entry.tokens for entry in arrived if entry.id in done.finished_s) / done.ended_s


def _low_share(seed: int, count: int, shape: Shape, rate: float) -> float:
    """Share of the low class over its floor while every class alone is overloaded."""
    mix = dict.fromkeys(DEFAULT_WEIGHTS, 0.25)
    arrivals = entries(
        poisson(rate * 4, count, random.Random(seed)), shape, random.Random(seed), mix
    )
    done = simulate(arrivals, Ours(shape), shape)
    end = arrivals[-1].arrived_s
    served = [entry for entry in arrivals if done.finished_s.get(entry.id, float("inf")) <= end]
    low = sum(entry.tokens for entry in served if entry.priority == LOW)
    return (
        low
        / sum(entry.tokens for entry in served)
        / (DEFAULT_WEIGHTS[LOW] / sum(DEFAULT_WEIGHTS.values()))
    )


def _fairness(seed: int, count: int, shape: Shape, rate: float) -> tuple[float, float]:
    """Capped Jain index over tenants and the worst victim's satisfaction, in one class."""
    arrivals = entries(
        poisson(rate, count, random.Random(seed)), shape, random.Random(seed), {LOW: 1.0}
    )
    done = simulate(arrivals, Ours(shape), shape)
    wanted, served = (
        dict.fromkeys(map(str, range(TENANTS)), 0.0),
        dict.fromkeys(map(str, range(TENANTS)), 0.0),
    )
    for entry in arrivals:
        wanted[entry.tenant] += entry.tokens
        served[entry.tenant] += entry.tokens if entry.id in done.finished_s else 0.0
    fair = _fair_share(list(wanted.values()), sum(served.values()))
    x = [min(1.0, served[tenant] / min(wanted[tenant], fair)) for tenant in wanted]
    jain = sum(x) ** 2 / (len(x) * sum(value * value for value in x))
    return jain, min(x[1:])


def _fair_share(wanted: list[float], capacity: float) -> float:
    """Max-min fair share: what each tenant may have at most so that the capacity is used up."""
    left, rest = capacity, sorted(wanted)
    for index, demand in enumerate(rest):
        share = left / (len(rest) - index)
        if demand >= share:
            return share
        left -= demand
    return max(rest)


def _bursty(options: Options, rate: float, count: int, seed: int) -> list[float]:
    """Instants of the code-completion trace scaled to the rate, or bursts made here: four seconds
    busy, four nearly idle.
    """
    if options.data is None or options.source("azure-llm-2023") == "generated":
        rng, now = random.Random(seed), 0.0
        out: list[float] = []
        while len(out) < count:
            now += rng.expovariate(rate * (1.8 if int(now / 4) % 2 == 0 else 0.2))
            out.append(now)
        return out
    with (options.data / "azure-llm-2023" / "code.csv").open(newline="") as file:
        stamps = [
            datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp()
            for row in csv.DictReader(file)
        ]
    stamps = [stamp - stamps[0] for stamp in sorted(stamps)][:count]
    scale = (len(stamps) / stamps[-1]) / rate
    return [stamp * scale for stamp in stamps]
