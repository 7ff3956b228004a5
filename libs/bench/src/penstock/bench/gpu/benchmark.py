"""The FP16 encoder on an NVIDIA GPU: precision, I/O binding, batches, and Triton beside it.

The FP16 folder is made from the FP32 one as `penstock.models quantise --kind fp16` does, its graph
is checked, and its code path is run. On a GPU, sides then take turns in rounds: rows a second of
both precisions with and without I/O binding, one by one and 128 a run; answers a second through the
batcher with batches of one row and of up to 128, with 128 callers; and Triton with the same file
and provider, where it installs (`make peers`).

`gpu_prepared` is 1 where everything that needs no GPU was done without a fault: the folder keeps
FP16's floors, the graph has no FP32 weight, answers with I/O binding are those without, and an
instance that asks for CUDA first serves batches. Without a GPU the rest was not run, and the page
says so. It ends within eight minutes.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from penstock.bench.gpu.folder import FLOORS, binding_problems, graph_problems, make_fp16_folder
from penstock.bench.gpu.rows import BATCH, RowRates, row_ratios
from penstock.bench.gpu.served import served_ratios, serving
from penstock.bench.harness.echo import echo_process
from penstock.bench.harness.intervals import bootstrap, medians
from penstock.bench.harness.options import Options
from penstock.bench.harness.processes import home_folder
from penstock.bench.harness.progress import say
from penstock.bench.harness.report import Bound, Result, Table
from penstock.bench.serving.infer_requests import single_requests
from penstock.onnx.card import BadModel
from penstock.onnx.encoder import TextModel
from penstock.onnx.session import CPU
from penstock.service.default_models import ENCODER
from penstock.service.program import loop_factory

CUDA = "CUDAExecutionProvider"
PROVIDERS = (CUDA, CPU)
MODEL = f"{ENCODER}-fp16"
ROUNDS, SECONDS, ROW_S = 7, 2.0, 0.5
CPU_BATCH, SHORT_S = 4, 0.2
"""Without a GPU everything runs once, shortly, to see that it does."""
TIME_LIMIT_S = 400.0
"""After it no further round begins, so that the whole ends within eight minutes."""
NEEDS_MODELS = True
BOUNDS = {"gpu_prepared": Bound(">=", 1)}
NOT_RUN = "no NVIDIA GPU was there; nothing was measured on one, only what needs none was done."
Row = Mapping[str, float]


@dataclass(frozen=True)
class Prepared:
    """What was made without a GPU: both folders by precision, figures, and what is wrong."""

    folders: Mapping[str, Path]
    figures: Mapping[str, float]
    problems: tuple[str, ...]


def run(options: Options) -> Result:
    """Prepare, and measure where there is a GPU."""
    end_s = time.monotonic() + TIME_LIMIT_S
    with tempfile.TemporaryDirectory(prefix="penstock-gpu-") as name:
        prepared = prepare(home_folder() / "models" / f"{ENCODER}-fp32" / "1", Path(name))
        if prepared.problems:
            return _result(prepared, False, [], ())
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            return runner.run(_measure(options, Path(name), prepared, end_s))


def prepare(source: Path, home: Path) -> Prepared:
    """Make the FP16 folder of the model in `source` below `home`, and judge it."""
    target = home / "models" / MODEL / "1"
    folders = {"FP32": source, "FP16": target}
    say("gpu: make and judge the FP16 folder")
    try:
        made = make_fp16_folder(source, target)
        problems = (*graph_problems(target), *binding_problems(target, PROVIDERS))
    except BadModel as error:
        return Prepared(folders, {}, (str(error),))
    figures = {f"fp16_{name}": made[name] for name in FLOORS}
    return Prepared(folders, figures, problems)


async def _measure(options: Options, home: Path, prepared: Prepared, end_s: float) -> Result:
    rates = RowRates(prepared.folders, PROVIDERS)
    on_gpu = rates.provider == CUDA
    full = on_gpu and not options.quick
    requests = single_requests(options, TextModel.load(prepared.folders["FP16"]))
    say(f"gpu: measure on {rates.provider}")
    rows: list[Row] = []
    with echo_process() as echo:
        async with serving(echo, home, MODEL, PROVIDERS) as served:
            while len(rows) < (ROUNDS if full else 1) and time.monotonic() < end_s:
                batch, row_s = (BATCH, ROW_S) if on_gpu else (CPU_BATCH, SHORT_S)
                by_way = await asyncio.to_thread(rates.per_s, batch, row_s)
                answered = await served.rates(requests, SECONDS if full else SHORT_S)
                rows.append({**by_way, **answered})
    notes = (f"Triton is absent: {served.why}",) if served.why else ()
    return _result(prepared, on_gpu, rows, notes)


def _result(
    prepared: Prepared, on_gpu: bool, rows: Sequence[Row], notes: tuple[str, ...]
) -> Result:
    ran = bool(rows) and all(rate > 0 for row in rows for rate in row.values())
    is_prepared = ran and not prepared.problems
    figures: dict[str, float] = {"gpu_prepared": int(is_prepared), **prepared.figures}
    context = {"provider": CUDA if on_gpu else CPU, "gpu": "run" if on_gpu else "not run"}
    if not on_gpu:
        said = (*prepared.problems, *notes)
        exact = frozenset(figures)
        return Result(figures, BOUNDS, context, notes=said, exact=exact, not_run=NOT_RUN)
    ratios = [{**row_ratios(row), **served_ratios(row)} for row in rows]
    table = Table("a second, by round", tuple(rows[0]), tuple(tuple(row.values()) for row in rows))
    return Result(
        figures | medians(ratios),
        BOUNDS,
        context,
        (table,),
        notes=(*prepared.problems, *notes),
        intervals=bootstrap(ratios, medians, "rounds"),
        exact=frozenset({"gpu_prepared"}),
    )
