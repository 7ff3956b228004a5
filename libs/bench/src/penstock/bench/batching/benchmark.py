"""Batching: what it saves on this CPU, what it costs when idle, and, simulated, what it gains under
overload and on a GPU's cost.

Real part: batcher and instance as processes, the shipped INT8 model, Banking77 texts as they come,
32 callers, batches of up to 32 rows against one row. Idle part: one caller, an instant model behind
the batcher against the same model called directly, in units of one bare gRPC hop. Virtual part: the
serving scheduler and batch former at twice the best first-come capacity, with prompt lengths of the
Azure conversation trace scaled to the model, on the cost of a CPU and of a GPU, against no
batching, first-come batches of 8, 32 and the best size, and a window of 10 ms. Padded part: the
original FP32 model, which runs a batch as one rectangle (the shipped INT8 model runs its rows
singly and pads nothing), 96 callers with texts of those lengths, the serving queue with the cost it
has learned against first-come batches of 32, in turns. Padding is counted over batches that were
built while at least a full batch was waiting. `virtual_*`, `gpu_*` and `vs_*_tokens` are simulated,
on a cost that was fitted to a CPU and on a formula for a GPU: no GPU was measured. The unbatched
side of the real part is our own batcher with one row.
"""

from __future__ import annotations

import asyncio
import random
import statistics
from collections.abc import Iterable, Sequence

from penstock.api.batcher.v1 import batcher_pb2
from penstock.api.inference.v1 import inference_pb2_grpc
from penstock.batcher.queue.batch_formation import padding_waste
from penstock.batcher.queue.requests import WorkItem
from penstock.bench.batching import padding
from penstock.bench.batching.batcher_process import INSTANT, BatcherProcess, batcher_process
from penstock.bench.batching.texts import sample_texts, trace_lengths
from penstock.bench.harness.echo import TOKEN, EchoAddresses, echo_process
from penstock.bench.harness.intervals import bootstrap, medians
from penstock.bench.harness.load import closed_loop
from penstock.bench.harness.options import Options
from penstock.bench.harness.report import Bound, Result
from penstock.bench.hop.benchmark import REQUEST
from penstock.rpc.call import Call
from penstock.rpc.peers.stream import connect, open_channel
from penstock.service.program import loop_factory
from penstock.simulation.batch_queue import (
    CPU,
    GPU,
    CostShape,
    FairBatching,
    FirstCome,
    FixedWindow,
    Lengths,
    QueueDiscipline,
    Served,
    best_first_come,
    poisson,
    requests_at,
    simulate,
    tokens_per_s,
)
from penstock.testkit.instance import INFERENCE

CALLERS = 32
MAX_ROWS = 32
SEEDS = tuple(range(1, 9))
WINDOW_S = 0.010
OVERLOAD = 2
PROBE_RATE_PER_S, PROBE_REQUESTS = 20_000, 4_000
"""The saturating load with which the best first-come batch size is found."""
NEEDS_MODELS = True
BOUNDS = {
    "padding_waste": Bound("<=", 0.05),
    "idle_added_hops": Bound("<=", 1.3),
    "overhead_cut": Bound(">=", 0.65),
    "vs_unbatched_rps": Bound(">=", 1.1),
    "vs_best_fifo_tokens": Bound(">=", 1.0),
    "gpu_vs_fifo_tokens": Bound(">=", 1.5),
    "gpu_padding_waste": Bound("<=", 0.35),
}
NOTES = (
    (
        "`padding_waste`, `padding_waste_fifo` and `fp32_vs_fifo_tokens` come from the padded "
        "part; `virtual_*`, `gpu_*` and the other `*_tokens` from the virtual part."
    ),
)
QUEUED_REQUEST = batcher_pb2.ComputeRequest(instance_id=INSTANT, model="m", task=REQUEST.task)


def run(options: Options) -> Result:
    """Measure."""
    virtual = _virtual(options)
    padded = padding.measure(options)
    with echo_process() as echo, asyncio.Runner(loop_factory=loop_factory()) as runner:
        real = runner.run(_real(options, echo))
    figures = medians(virtual) | padding.figures(padded) | medians(real)
    intervals = bootstrap(virtual, medians, "seeds") | bootstrap(real, medians, "rounds")
    intervals |= bootstrap(padded, padding.figures, "rounds")
    context = {
        "data": {name: options.source(name) for name in ("banking77", "azure-llm-2023")},
        "seeds": list(SEEDS),
        "callers": CALLERS,
    }
    return Result(figures, BOUNDS, context, notes=NOTES, intervals=intervals)


def _virtual(options: Options) -> list[dict[str, float]]:
    """Figures on both costs, by seed."""
    count = 2_000 if options.quick else 12_000
    lengths = trace_lengths(options)
    return [
        _figures_of(CPU, seed, count, lengths)
        | {
            # Only the CPU's cost has a real model beside it, so only its padding is `virtual_`.
            "gpu_" + name.removeprefix("virtual_"): value
            for name, value in _figures_of(GPU, seed, count, lengths).items()
        }
        for seed in (SEEDS[:1] if options.quick else SEEDS)
    ]


def _figures_of(shape: CostShape, seed: int, count: int, lengths: Lengths) -> dict[str, float]:
    """Our batching against others on one cost, over the same requests."""

    def make(instants_s: Iterable[float]) -> list[WorkItem]:
        return requests_at(instants_s, shape, random.Random(seed), lengths=lengths)

    size, capacity = best_first_come(
        shape, lambda: make(poisson(PROBE_RATE_PER_S, PROBE_REQUESTS, random.Random(seed)))
    )
    mean_tokens = statistics.mean(entry.tokens for entry in make(range(PROBE_REQUESTS)))
    rate_per_s = OVERLOAD * capacity / mean_tokens
    requests = make(poisson(rate_per_s, count, random.Random(seed)))
    ours = simulate(requests, FairBatching(shape), shape)
    first_come = simulate(requests, FirstCome(shape, MAX_ROWS), shape)

    def gain(other: QueueDiscipline) -> float:
        served = simulate(requests, other, shape)
        return tokens_per_s(ours, requests) / tokens_per_s(served, requests)

    return {
        "vs_best_fifo_tokens": gain(FirstCome(shape, size)),
        "vs_unbatched_tokens": gain(FirstCome(shape, 1)),
        "vs_fifo8_tokens": gain(FirstCome(shape, 8)),
        "vs_fifo_tokens": tokens_per_s(ours, requests) / tokens_per_s(first_come, requests),
        "vs_window_tokens": gain(FixedWindow(shape, MAX_ROWS, WINDOW_S)),
        "virtual_padding_waste": _padding_waste(ours, shape.rows),
        "virtual_padding_waste_fifo": _padding_waste(first_come, shape.rows),
    }


def _padding_waste(served: Served, full: int) -> float:
    """Share of padding in the tokens of batches built while at least `full` requests waited.

    Raises:
        ValueError: there was no such batch.
    """
    batches = [batch for waiting, batch in served.batches if waiting >= full]
    if not batches:
        raise ValueError("the load never filled a batch, so its padding cannot be measured")
    sizes = [sum(entry.tokens for entry in batch) for batch in batches]
    padded = sum(
        size / (1.0 - padding_waste(batch)) for size, batch in zip(sizes, batches, strict=True)
    )
    return 1.0 - sum(sizes) / padded


async def _real(options: Options, echo: EchoAddresses) -> list[dict[str, float]]:
    rounds, seconds = (2, 0.6) if options.quick else (8, 3.0)
    texts = sample_texts(options)
    async with batcher_process(echo) as batcher:
        return [
            {
                "idle_added_hops": await _idle_hops(batcher, echo, seconds / 2),
                "overhead_cut": await _overhead_cut(batcher, seconds / 2),
                "vs_unbatched_rps": await _gain(batcher, texts, seconds),
            }
            for _ in range(rounds)
        ]


async def _idle_hops(batcher: BatcherProcess, echo: EchoAddresses, seconds: float) -> float:
    """Latency that the batcher adds for one caller, in bare gRPC hops."""
    direct_peer = connect(echo.endpoint, INFERENCE, token=TOKEN)

    async def direct(_: int) -> object:
        return await direct_peer.call("Compute", REQUEST, Call())

    async with open_channel(echo.bare) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        hop = await closed_loop(lambda _: stub.Compute(REQUEST), 1, seconds)
    without_batcher = await closed_loop(direct, 1, seconds)
    with_batcher = await closed_loop(lambda _: _queue(batcher), 1, seconds)
    await direct_peer.close()
    return (with_batcher.p50_ms() - without_batcher.p50_ms()) / hop.p50_ms()


async def _queue(batcher: BatcherProcess) -> object:
    return await batcher.peer.call("Compute", QUEUED_REQUEST, Call())


async def _overhead_cut(batcher: BatcherProcess, seconds: float) -> float:
    """Share of the batcher's CPU a request that batching saves; the model is instant."""
    cpu_s_per_request = []
    for rows in (1, MAX_ROWS):
        await batcher.set_max_rows(rows)
        before_s = batcher.cpu_s()
        load = await closed_loop(lambda _: _queue(batcher), CALLERS, seconds)
        cpu_s_per_request.append((batcher.cpu_s() - before_s) / len(load.latencies_ms))
    return 1.0 - cpu_s_per_request[1] / cpu_s_per_request[0]


async def _gain(batcher: BatcherProcess, texts: Sequence[str], seconds: float) -> float:
    """Answers a second with batches of up to 32 rows over those with one, on the real model."""
    rates = []
    for rows in (1, MAX_ROWS):
        await batcher.set_max_rows(rows)
        load = await closed_loop(
            lambda number: batcher.embed(texts[number % len(texts)]), CALLERS, seconds
        )
        rates.append(load.rps)
    return rates[1] / rates[0]
