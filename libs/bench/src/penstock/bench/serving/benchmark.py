"""Our server by KServe v2 against Triton and against bare onnxruntime in a loop.

Same model file, same client, same cores. Each request is one text of 16 tokens. Sides take turns in
each round; a figure is the median over the rounds. Triton runs in the peers' environment (`make
peers`); where that is missing, its figures are absent. Our server runs as its supervisor starts it,
Triton with its runtime's defaults. `vs_triton_as_ours_rps` gives Triton's runtime, as the loop has
it, the one setting that ours has (`penstock.onnx.session.SLOW_FUSIONS`: a fusion that is slower on
a CPU is disabled). It is Triton with its Python back end, which is all that NVIDIA's wheel for pip
(`nvidia-pytriton`) carries: Triton's own onnxruntime back end comes with NVIDIA's containers only
and could not be had here, so nothing is said of it.

`of_bare_runtime` compares requests of one text with a loop over batches of 32, so three things are
in it: the RPC, the client on the same cores, and what a batch of 32 saves on this CPU.
`of_bare_runtime_batched` takes the last away: each request has the 32 texts of a batch.
`of_bare_ceiling` is what a server could reach that costs nothing but its RPC: the time a request of
a server without a model and the loop's time a text, added up, as both fill the cores;
`of_single_row_ceiling` is our rate divided by the same sum with a loop over single texts, as many
side by side as there are cores: what a server could reach whose answers, like ours, are those of
the text alone. Triton joins
requests to batches; its answers are then those of the batch (the model scales activations over it),
while ours are those of the text alone. `triton_answer_cosine_min` says how far a text's answer
changed under load.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from penstock.bench.harness.data_sets import BANKING77
from penstock.bench.harness.intervals import bootstrap, medians
from penstock.bench.harness.load import LoadResult
from penstock.bench.harness.options import Options
from penstock.bench.harness.processes import home_folder
from penstock.bench.harness.report import Bound, Number, Result, Table
from penstock.bench.serving.bare_loops import BareLoops
from penstock.bench.serving.infer_requests import (
    BATCH,
    TOKENS,
    Requests,
    Server,
    batched_requests,
    min_cosine_under_load,
    single_requests,
)
from penstock.bench.serving.servers import PeerAbsent, echo_server, our_server, triton_server
from penstock.onnx.encoder import TextModel
from penstock.onnx.session import SLOW_FUSIONS

MODEL = "all-MiniLM-L6-v2"
CALLERS = (1, 8, 32)
MOST_CALLERS = max(CALLERS)
WARM_UP_CALLERS, WARM_UP_S = 8, 1.0
OURS, TRITON, ECHO = "Penstock", "Triton", "a server without a model"
TRITON_AS_OURS = "Triton, the runtime set as ours"
NEEDS_MODELS = True
BOUNDS = {
    "vs_triton_rps": Bound(">=", 1.1),
    "vs_triton_p50_at_1": Bound("<=", 0.6),
    "of_bare_runtime": Bound(">=", 0.75),
    "of_single_row_ceiling": Bound(">=", 0.9),
}


@dataclass
class Rounds:
    """What was measured, one entry a round.

    Attributes:
        loads: by side and number of callers.
        bare_rps: texts a second of the loop.
        single_rps: texts a second of loops over single texts, one a core.
        batched_rps: texts a second of requests with 32 texts to our server.
        echo_rps: requests a second of the server without a model.
        min_cosine: how far answers changed under load, by side.
    """

    loads: dict[tuple[str, int], list[LoadResult]] = field(default_factory=dict)
    bare_rps: list[float] = field(default_factory=list)
    single_rps: list[float] = field(default_factory=list)
    batched_rps: list[float] = field(default_factory=list)
    echo_rps: list[float] = field(default_factory=list)
    min_cosine: dict[str, float] = field(default_factory=dict)

    def rps(self, side: str, callers: int) -> list[float]:
        """Requests a second of each round."""
        return [load.rps for load in self.loads[side, callers]]

    def p50_ms(self, side: str, callers: int) -> list[float]:
        """Median latency of each round."""
        return [load.p50_ms() for load in self.loads[side, callers]]


def run(options: Options) -> Result:
    """Measure."""
    return asyncio.run(_run(options))


async def _run(options: Options) -> Result:
    threads = os.cpu_count() or 1
    folder = home_folder() / "models" / MODEL / "1"
    requests = single_requests(options, TextModel.load(folder))
    bare = BareLoops(folder / "model.onnx", threads, requests)
    async with contextlib.AsyncExitStack() as running:
        sides = {OURS: await running.enter_async_context(our_server(home_folder(), MODEL, threads))}
        notes, not_run = _busy_note(os.getloadavg()[0], threads), ""
        try:
            for name, disabled in ((TRITON, ()), (TRITON_AS_OURS, SLOW_FUSIONS)):
                triton = triton_server(folder / "model.onnx", threads, disabled)
                sides[name] = await running.enter_async_context(triton)
        except PeerAbsent as absent:
            not_run = f"Triton, which is absent: {absent}."
        echo = await running.enter_async_context(echo_server())
        rounds = await _measure(options, requests, bare, sides, echo)
    context = {
        "data": options.source(BANKING77),
        "threads": threads,
        "tokens": TOKENS,
        "load_average": round(os.getloadavg()[0], 1),
    }
    ratios = _ratios(rounds)
    figures = medians(ratios) | _cosines(rounds)
    bounds = {name: bound for name, bound in BOUNDS.items() if name in figures}
    intervals = bootstrap(ratios, medians, "rounds")
    return Result(
        figures,
        bounds,
        context,
        (_table(rounds),),
        notes=notes,
        intervals=intervals,
        not_run=not_run,
    )


async def _measure(
    options: Options, requests: Requests, bare: BareLoops, sides: dict[str, Server], echo: Server
) -> Rounds:
    count, seconds = (1, 1.0) if options.quick else (10, 1.5)
    batches = batched_requests(requests)
    rounds = Rounds()
    for side in (*sides.values(), echo):
        await side.load(requests, WARM_UP_CALLERS, WARM_UP_S)
    for number in range(count):
        for callers in CALLERS:
            for name in sorted(sides, reverse=bool(number % 2)):
                load = await sides[name].load(requests, callers, seconds)
                rounds.loads.setdefault((name, callers), []).append(load)
        batched = await sides[OURS].load(batches, MOST_CALLERS, seconds)
        rounds.batched_rps.append(batched.rps * BATCH)
        rounds.echo_rps.append((await echo.load(requests, MOST_CALLERS, seconds)).rps)
        rounds.bare_rps.append(await asyncio.to_thread(bare.batched_rps, seconds))
        rounds.single_rps.append(await asyncio.to_thread(bare.single_rps, seconds))
    for name, side in sides.items():
        rounds.min_cosine[name] = await min_cosine_under_load(side, requests)
    return rounds


def _busy_note(load_average: float, cores: int) -> tuple[str, ...]:
    """A note where other work runs on the machine.

    The loop and Triton wait for their second thread by spinning, so other work on the cores hurts
    them far more than us.
    """
    if load_average <= cores:
        return ()
    note = (
        f"Other work was running at the start (load {load_average:.1f} on {cores} cores): measure "
        "again when the machine is quiet; each ratio here flatters us."
    )
    return (note,)


def _ratios(rounds: Rounds) -> list[dict[str, float]]:
    """The ratios of each round."""
    ours = rounds.rps(OURS, MOST_CALLERS)
    columns = {
        "of_bare_runtime": _divided(ours, rounds.bare_rps),
        "of_bare_ceiling": [
            echo / (echo + bare)
            for echo, bare in zip(rounds.echo_rps, rounds.bare_rps, strict=True)
        ],
        "of_single_row_ceiling": [
            rate * (1 / single + 1 / echo)
            for rate, single, echo in zip(ours, rounds.single_rps, rounds.echo_rps, strict=True)
        ],
        "of_bare_runtime_batched": _divided(rounds.batched_rps, rounds.bare_rps),
    }
    if (TRITON, MOST_CALLERS) in rounds.loads:
        columns |= _against_triton(rounds)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _against_triton(rounds: Rounds) -> dict[str, list[float]]:
    ours_p50_ms = rounds.p50_ms(OURS, 1)
    names = {callers: f"vs_triton_rps_at_{callers}" for callers in CALLERS}
    names[MOST_CALLERS] = "vs_triton_rps"
    return {
        **{
            names[callers]: _divided(rounds.rps(OURS, callers), rounds.rps(TRITON, callers))
            for callers in CALLERS
        },
        "vs_triton_p50_at_1": _divided(ours_p50_ms, rounds.p50_ms(TRITON, 1)),
        "vs_triton_as_ours_rps": _divided(
            rounds.rps(OURS, MOST_CALLERS), rounds.rps(TRITON_AS_OURS, MOST_CALLERS)
        ),
        "vs_triton_as_ours_p50_at_1": _divided(ours_p50_ms, rounds.p50_ms(TRITON_AS_OURS, 1)),
    }


def _cosines(rounds: Rounds) -> dict[str, float]:
    names = {OURS: "answer_cosine_min", TRITON: "triton_answer_cosine_min"}
    return {names[side]: rounds.min_cosine[side] for side in names if side in rounds.min_cosine}


def _divided(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def _table(rounds: Rounds) -> Table:
    rows: list[tuple[str | Number, ...]] = []
    for name, callers in sorted(rounds.loads):
        rps = statistics.median(rounds.rps(name, callers))
        rows.append((name, callers, rps, statistics.median(rounds.p50_ms(name, callers))))
    batched = "Penstock, requests of 32 texts, texts a second"
    loop = "onnxruntime in a loop, batches of 32, texts a second"
    single = "onnxruntime in a loop a core, single texts, texts a second"
    rows += [
        (batched, MOST_CALLERS, statistics.median(rounds.batched_rps), "–"),
        (ECHO, MOST_CALLERS, statistics.median(rounds.echo_rps), "–"),
        (loop, "–", statistics.median(rounds.bare_rps), "–"),
        (single, "–", statistics.median(rounds.single_rps), "–"),
    ]
    columns = ("side", "callers", "requests a second", "p50, ms")
    return Table("Medians of the rounds", columns, tuple(rows))
