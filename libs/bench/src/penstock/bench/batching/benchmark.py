"""Grouping: what it saves on this CPU with the real model, what it costs when idle, and what it
brings on a GPU-shaped cost.

Real part: batcher and instance as processes, the shipped INT8 model, Banking77 texts as they come,
32 callers, batch size up to 32 against one row. Idle part: one caller, an instant model behind the
batcher against the same called directly, in units of one bare gRPC hop. Virtual part: the serving
code's scheduler and former at twice the best first-come capacity, prompt lengths of the
Azure conversation trace scaled to the model, on a CPU-shaped and a GPU-shaped cost, against no
batching, first-come batches of 8, 32 and the best size, and a window of 10 ms. Padded part: the
original FP32 model, which runs a batch as one rectangle (the shipped INT8 model runs its rows
singly and pads nothing), 96 callers with texts of those lengths, the serving queue with the cost it
has learnt against first-come batches of 32, in turns. Padding is counted over batches built while
at least a full batch was waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import statistics
import tempfile
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from penstock.api.batcher.v1 import batcher_pb2
from penstock.api.inference.v1 import inference_pb2, inference_pb2_grpc
from penstock.batcher.batch_formation import padding_waste
from penstock.batcher.work_item import WorkItem
from penstock.bench.batching import padding as batching_padding
from penstock.bench.batching.texts import sample_texts, trace_lengths
from penstock.bench.harness.echo import SERVICE, TOKEN, EchoAddresses, echo_process
from penstock.bench.harness.load import closed_loop
from penstock.bench.harness.options import Options
from penstock.bench.harness.report import Bound, Result
from penstock.bench.hop.benchmark import REQUEST
from penstock.rpc.call import Call
from penstock.rpc.peers.stream import Peer, connect, open_channel
from penstock.service.program import loop_factory
from penstock.simulation.batch_queue import (
    CPU,
    GPU,
    Discipline,
    Done,
    Fifo,
    Lengths,
    Ours,
    Shape,
    Window,
    best_fifo,
    entries,
    poisson,
    simulate,
)
from penstock.stack import ports
from penstock.stack.log import LogStream
from penstock.stack.plan import StackPlan
from penstock.stack.ready import ready
from penstock.stack.supervisor import Supervisor
from rich.console import Console

BATCHER = batcher_pb2.DESCRIPTOR.services_by_name["BatcherService"]
CALLERS = 32
MODEL = "all-MiniLM-L6-v2"
SEEDS = (1, 2, 3)
WINDOW_S = 0.010


def run(options: Options) -> Result:
    figures = _virtual(options) | batching_padding.measure(options)
    with echo_process() as echo, asyncio.Runner(loop_factory=loop_factory()) as runner:
        figures |= runner.run(_real(options, echo))
    bounds = {
        "padding_waste": Bound("<=", 0.05),
        "idle_added_hops": Bound("<=", 1.3),
        "overhead_cut": Bound(">=", 0.65),
        "vs_unbatched_rps": Bound(">=", 1.1),
        "vs_best_fifo_tokens": Bound(">=", 1.0),
        "gpu_vs_fifo_tokens": Bound(">=", 1.5),
        "gpu_padding_waste": Bound("<=", 0.35),
    }
    context = {
        "data": {name: options.source(name) for name in ("banking77", "azure-llm-2023")},
        "seeds": list(SEEDS),
        "callers": CALLERS,
    }
    notes = (
        (
            "`padding_waste`, `padding_waste_fifo` and `fp32_vs_fifo_tokens` come from the "
            "padded part; `virtual_*`, `gpu_*` and the other "
            "`*_tokens` from the virtual part."
        ),
    )
    return Result(figures, bounds, context, notes=notes)


def _virtual(options: Options) -> dict[str, float]:
    count = 2_000 if options.quick else 12_000
    lengths = trace_lengths(options)
    rows = [
        {
            **_shape_figures(CPU, seed, count, "", lengths),
            **_shape_figures(GPU, seed, count, "gpu_", lengths),
        }
        for seed in SEEDS
    ]
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


def _shape_figures(
    shape: Shape, seed: int, count: int, prefix: str, lengths: Lengths
) -> dict[str, float]:
    def make(instants: Iterable[float]) -> list[WorkItem]:
        return entries(instants, shape, random.Random(seed), lengths=lengths)

    size, tokens_per_s = best_fifo(shape, lambda: make(poisson(20_000, 4_000, random.Random(seed))))
    mean = statistics.mean(entry.tokens for entry in make(range(4_000)))
    requests = make(poisson(2 * tokens_per_s / mean, count, random.Random(seed)))
    ours = simulate(requests, Ours(shape), shape)

    def gain(other: Discipline) -> float:
        """Tokens a second, ours over the other's."""
        done = simulate(requests, other, shape)
        return _tokens_per_s(ours, requests) / _tokens_per_s(done, requests)

    figures = {
        "vs_best_fifo_tokens": gain(Fifo(shape, size)),
        "vs_unbatched_tokens": gain(Fifo(shape, 1)),
        "vs_fifo8_tokens": gain(Fifo(shape, 8)),
        "vs_fifo_tokens": gain(Fifo(shape, 32)),
        "vs_window_tokens": gain(Window(shape, 32, WINDOW_S)),
        "virtual_padding_waste": _waste(ours, shape.rows),
        "virtual_padding_waste_fifo": _waste(
            simulate(requests, Fifo(shape, 32), shape), shape.rows
        ),
    }
    if prefix:  # only the CPU's shape has a real model beside it
        figures = {name.removeprefix("virtual_"): value for name, value in figures.items()}
    return {prefix + name: value for name, value in figures.items()}


def _tokens_per_s(done: Done, requests: Sequence[WorkItem]) -> float:
    return sum(entry.tokens for entry in requests if entry.id in done.finished_s) / done.ended_s


def _waste(done: Done, full: int) -> float:
    """Padding waste of the batches built while at least `full` requests were waiting, weighted by
    padded tokens.
    """
    batches = [batch for waiting, batch in done.batches if waiting >= full]
    if not batches:
        raise ValueError("the load never filled a batch, so its padding says nothing")
    real = sum(sum(entry.tokens for entry in batch) for batch in batches)
    padded = sum(
        sum(entry.tokens for entry in batch) / (1.0 - padding_waste(batch)) for batch in batches
    )
    return 1.0 - real / padded


@dataclass
class Rig:
    """A batcher process with the real model and the instant model attached."""

    peer: Peer
    pids: dict[str, int]

    async def configure(self, rows: int) -> None:
        request = batcher_pb2.ConfigureRequest(knobs=batcher_pb2.Knobs(max_batch_size=rows))
        await self.peer.call("Configure", request, Call())

    def cpu_s(self) -> float:
        """CPU seconds of the batcher so far."""
        times = psutil.Process(self.pids["batcher"]).cpu_times()
        return float(times.user + times.system)


@contextlib.asynccontextmanager
async def batcher_rig(echo: EchoAddresses) -> AsyncIterator[Rig]:
    with tempfile.TemporaryDirectory(prefix="penstock-batching-") as folder:
        config = Path(folder) / "penstock.yaml"
        config.write_text("{}")
        home = Path(os.environ.get("PENSTOCK_HOME", ".penstock")).resolve()
        plan = StackPlan(ports.free(), home, Path(folder), config, TOKEN)
        supervisor = Supervisor(LogStream(Console(quiet=True)), ready)
        peer = connect(plan.addresses["batcher"], BATCHER, token=TOKEN)
        try:
            await supervisor.start(plan.batcher_and_instance())
            for name, address, slots in (
                ("real", plan.addresses["inference-1"], 1),
                ("instant", echo.door, 1),
            ):
                request = batcher_pb2.AttachInstanceRequest(
                    instance_id=name, address=address, concurrency=slots
                )
                await peer.call("AttachInstance", request, Call())
            pids = {
                name: child.pid
                for name in ("batcher", "inference-1")
                if (child := supervisor.child(name))
            }
            yield Rig(peer, pids)
        finally:
            await peer.close()
            await supervisor.stop()


async def _real(options: Options, echo: EchoAddresses) -> dict[str, float]:
    rounds, seconds = (2, 0.6) if options.quick else (5, 4.0)
    async with batcher_rig(echo) as rig:
        idle = [await _idle_hops(rig, echo, seconds / 2) for _ in range(rounds)]
        cuts = [await _overhead(rig, seconds / 2) for _ in range(rounds)]
        gains = [await _gain(rig, sample_texts(options), seconds) for _ in range(rounds)]
    return {
        "idle_added_hops": statistics.median(idle),
        "overhead_cut": statistics.median(cuts),
        "vs_unbatched_rps": statistics.median(gains),
    }


async def _idle_hops(rig: Rig, echo: EchoAddresses, seconds: float) -> float:
    """Latency added by the batcher for one caller, in bare gRPC hops."""
    direct = connect(echo.door, SERVICE, token=TOKEN)
    queued = batcher_pb2.ComputeRequest(instance_id="instant", model="m", task=REQUEST.task)
    async with open_channel(echo.bare) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        bare = await closed_loop(lambda _: stub.Compute(REQUEST), 1, seconds)
    straight = await closed_loop(lambda _: direct.call("Compute", REQUEST, Call()), 1, seconds)
    through = await closed_loop(lambda _: rig.peer.call("Compute", queued, Call()), 1, seconds)
    await direct.close()
    return (through.p50_ms() - straight.p50_ms()) / bare.p50_ms()


async def _overhead(rig: Rig, seconds: float) -> float:
    """Share of CPU a request outside the model that grouping saves: batcher's and model's share,
    the model being instant.
    """
    queued = batcher_pb2.ComputeRequest(instance_id="instant", model="m", task=REQUEST.task)
    costs = []
    for rows in (1, 32):
        await rig.configure(rows)
        began = rig.cpu_s()
        done = await closed_loop(
            lambda _: rig.peer.call("Compute", queued, Call()), CALLERS, seconds
        )
        costs.append((rig.cpu_s() - began) / len(done.latencies_ms))
    return 1.0 - costs[1] / costs[0]


async def _gain(rig: Rig, texts: list[str], seconds: float) -> float:
    """Answers a second with groups of up to 32 over answers one by one, on the real model."""
    rates = []
    for rows in (1, 32):
        await rig.configure(rows)

        async def ask(number: int) -> object:
            task = inference_pb2.Task(
                embed=inference_pb2.EmbedTask(texts=[texts[number % len(texts)]])
            )
            return await rig.peer.call(
                "Compute",
                batcher_pb2.ComputeRequest(instance_id="real", model=MODEL, task=task),
                Call(),
            )

        rates.append((await closed_loop(ask, CALLERS, seconds)).rps)
    return rates[1] / rates[0]
