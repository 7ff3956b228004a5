"""Our server by KServe v2 against Triton, and against bare onnxruntime in a loop: same model file,
same client, same cores.

Each request is one text of 16 tokens. Sides take turns within each round; a figure is the median
over the rounds. Triton runs in the peers' environment (`make peers`); where that is missing its
figures are absent. The client runs on the same cores as the servers. Our server runs as its
supervisor starts it, Triton with the runtime as that comes. `vs_triton_as_ours_rps` gives Triton's
runtime the one setting that ours has (penstock.onnx.session.SLOW_FUSIONS: a fusion left out that is
slower on a CPU), as does the loop.

`of_bare_runtime` sets requests of one text against a loop over batches of 32, so three things are
in it: the RPC, the client on the same cores, and what a batch of 32 saves this CPU.
`of_bare_runtime_batched` takes the last away: each request carries the 32 texts of a batch.
`of_bare_ceiling` says what is left of it for a server that costs nothing but its RPC: a server
without a model answers the same client and its time and the loop's add up, as both fill the cores.
Triton joins requests to batches; its answers are then those of the batch (the model scales
activations over it), while ours are those of the text alone. `triton_answer_cosine_min` says how
far a text's answer moved under the load.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import functools
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
from penstock.api.kserve import inference_pb2 as kserve
from penstock.api.kserve import inference_pb2_grpc as kserve_grpc
from penstock.bench.harness.load import Measured, closed_loop
from penstock.bench.harness.options import Options
from penstock.bench.harness.report import Bound, Result, Table
from penstock.models.samples import SAMPLE_TEXTS
from penstock.onnx.encoder import Floats, TextModel
from penstock.onnx.session import SLOW_FUSIONS, OnnxSession
from penstock.stack.process import POLL_WHERE_WAITED

MODEL = "all-MiniLM-L6-v2"
TOKENS, BATCH = 16, 32
CALLERS = (1, 8, 32)
PEERS = Path(".venv-peers/bin/python")
START_S = 90.0
OURS, TRITON, ECHO = "Penstock", "Triton", "a server without a model"
AS_OURS = "Triton, the runtime set as ours"
WIDTH = 384


@dataclass(frozen=True)
class Side:
    """A server to ask: its stub, and what its copy of the model is called."""

    stub: kserve_grpc.GRPCInferenceServiceStub
    model: str


def run(options: Options) -> Result:
    return asyncio.run(_run(options))


async def _run(options: Options) -> Result:
    home = Path(os.environ.get("PENSTOCK_HOME", ".penstock")).resolve()
    folder = home / "models" / MODEL / "1"
    threads = os.cpu_count() or 1
    rows = _rows(options, TextModel.load(folder))
    bare = OnnxSession(folder / "model.onnx", threads)
    rounds, seconds = (1, 1.0) if options.quick else (5, 1.5)
    measured: dict[tuple[str, int], list[Measured]] = {}
    bare_rps: list[float] = []
    batched_rps: list[float] = []
    echo_rps: list[float] = []
    batches = _batches(rows)
    async with contextlib.AsyncExitStack() as stack:
        sides = {OURS: await stack.enter_async_context(_ours(home, threads))}
        notes = _busy(os.getloadavg()[0], threads)
        try:
            for name, slower in ((TRITON, ()), (AS_OURS, SLOW_FUSIONS)):
                sides[name] = await stack.enter_async_context(
                    _triton(folder / "model.onnx", threads, slower)
                )
        except PeerAbsent as absent:
            notes += (f"Triton is absent: {absent}",)
        echo = await stack.enter_async_context(_echo())
        for side in (*sides.values(), echo):
            await _load(side, rows, 8, 1.0)
        for turn in range(rounds):
            for callers in CALLERS:
                for name in sorted(sides, reverse=bool(turn % 2)):
                    found = await _load(sides[name], rows, callers, seconds)
                    measured.setdefault((name, callers), []).append(found)
            batched = await _load(sides[OURS], batches, max(CALLERS), seconds)
            batched_rps.append(batched.rps * BATCH)
            echo_rps.append((await _load(echo, rows, max(CALLERS), seconds)).rps)
            bare_rps.append(await asyncio.to_thread(_bare, bare, rows, seconds))
        moved = {name: await _moved(side, rows) for name, side in sides.items()}
    runs = Runs(measured, bare_rps, batched_rps, echo_rps, moved)
    return _result(runs, threads, options, notes)


def _busy(load: float, cores: int) -> tuple[str, ...]:
    """The loop and Triton wait for their second thread by spinning, so other work on the cores
    hurts them far more than us.
    """
    if load <= cores:
        return ()
    return (
        (
            f"Other work was running at the start (load {load:.1f} on {cores} cores): measure "
            "again when quiet; each ratio here flatters us."
        ),
    )


@dataclass(frozen=True)
class Runs:
    """What was measured: by side and callers, one entry a round; rows a second of the loop and of
    requests of 32 rows; requests a second without a model; moved answers.
    """

    measured: dict[tuple[str, int], list[Measured]]
    bare_rps: list[float]
    batched_rps: list[float]
    echo_rps: list[float]
    moved: dict[str, float]


def _result(runs: Runs, threads: int, options: Options, notes: tuple[str, ...]) -> Result:
    def ratio(a: Sequence[float], b: Sequence[float]) -> float:
        return statistics.median(x / y for x, y in zip(a, b, strict=True))

    rps = {key: [found.rps for found in rounds] for key, rounds in runs.measured.items()}
    p50 = {key: [found.p50_ms() for found in rounds] for key, rounds in runs.measured.items()}
    figures = {
        "of_bare_runtime": ratio(rps[OURS, 32], runs.bare_rps),
        "of_bare_ceiling": statistics.median(
            echo / (echo + bare) for echo, bare in zip(runs.echo_rps, runs.bare_rps, strict=True)
        ),
        "of_bare_runtime_batched": ratio(runs.batched_rps, runs.bare_rps),
        "answer_cosine_min": runs.moved[OURS],
    }
    if (TRITON, 32) in rps:
        figures["vs_triton_rps"] = ratio(rps[OURS, 32], rps[TRITON, 32])
        figures["vs_triton_p50_at_1"] = ratio(p50[OURS, 1], p50[TRITON, 1])
        figures |= {
            f"vs_triton_rps_at_{callers}": ratio(rps[OURS, callers], rps[TRITON, callers])
            for callers in (1, 8)
        }
        figures["vs_triton_as_ours_rps"] = ratio(rps[OURS, 32], rps[AS_OURS, 32])
        figures["vs_triton_as_ours_p50_at_1"] = ratio(p50[OURS, 1], p50[AS_OURS, 1])
        figures["triton_answer_cosine_min"] = runs.moved[TRITON]
    rows: list[tuple[str | float, ...]] = [
        (
            name,
            callers,
            statistics.median(rps[name, callers]),
            statistics.median(p50[name, callers]),
        )
        for name, callers in sorted(rps)
    ]
    rows.append(
        (
            "Penstock, requests of 32 texts, texts a second",
            32,
            statistics.median(runs.batched_rps),
            "–",
        )
    )
    rows.append((ECHO, 32, statistics.median(runs.echo_rps), "–"))
    rows.append(
        (
            "onnxruntime in a loop, batches of 32, texts a second",
            "–",
            statistics.median(runs.bare_rps),
            "–",
        )
    )
    bounds = {
        "vs_triton_rps": Bound(">=", 1.1),
        "vs_triton_p50_at_1": Bound("<=", 0.6),
        "of_bare_runtime": Bound(">=", 0.75),
    }
    table = Table(
        "Medians of the rounds", ("side", "callers", "requests a second", "p50, ms"), tuple(rows)
    )
    load = os.getloadavg()[0]
    context = {
        "data": options.source("banking77"),
        "threads": threads,
        "tokens": TOKENS,
        "load_average": round(load, 1),
    }
    return Result(figures, bounds, context, (table,), notes=notes)


def _rows(options: Options, model: TextModel) -> list[kserve.ModelInferRequest]:
    """Requests of 16 tokens each, the model's name left open."""
    texts = list(SAMPLE_TEXTS)
    if options.data is not None and options.source("banking77") != "generated":
        with (options.data / "banking77" / "test.csv").open(newline="", encoding="utf-8") as file:
            texts = [row["text"] for row in csv.DictReader(file)]
    chosen = [ids[:TOKENS] for ids, _ in model.encode(texts) if len(ids) >= TOKENS][:256]
    return [_request(np.array([ids], dtype=np.int64)) for ids in chosen]


def _request(ids: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> kserve.ModelInferRequest:
    request = kserve.ModelInferRequest()
    given = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": np.zeros_like(ids),
    }
    for name, array in given.items():
        request.inputs.add(name=name, datatype="INT64", shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    return request


async def _load(
    side: Side, rows: list[kserve.ModelInferRequest], callers: int, seconds: float
) -> Measured:
    ready = [_named(row, side) for row in rows]
    return await closed_loop(
        lambda number: side.stub.ModelInfer(ready[number % len(ready)]), callers, seconds
    )


def _batches(rows: list[kserve.ModelInferRequest]) -> list[kserve.ModelInferRequest]:
    """The same texts, 32 in a request."""
    made = []
    for start in range(0, max(1, len(rows) - BATCH + 1), BATCH):
        together = rows[start : start + BATCH]
        request = kserve.ModelInferRequest()
        for place, tensor in enumerate(together[0].inputs):
            request.inputs.add(name=tensor.name, datatype="INT64", shape=[len(together), TOKENS])
            request.raw_input_contents.append(
                b"".join(row.raw_input_contents[place] for row in together)
            )
        made.append(request)
    return made


async def _moved(side: Side, rows: list[kserve.ModelInferRequest]) -> float:
    """Least cosine between a text's answer alone and its answer while 31 others are asked."""
    ask = functools.partial(_answers, side, rows[:BATCH])
    alone, together = await ask(1), await ask(BATCH)
    return min(
        float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        for a, b in zip(alone, together, strict=True)
    )


async def _answers(side: Side, rows: list[kserve.ModelInferRequest], at_once: int) -> list[Floats]:
    found: list[Floats] = []
    for start in range(0, len(rows), at_once):
        calls = [side.stub.ModelInfer(_named(row, side)) for row in rows[start : start + at_once]]
        found += [
            np.frombuffer((await call).raw_output_contents[0], dtype=np.float32) for call in calls
        ]
    return found


def _named(row: kserve.ModelInferRequest, side: Side) -> kserve.ModelInferRequest:
    request = kserve.ModelInferRequest(model_name=side.model)
    request.MergeFrom(row)
    return request


def _bare(session: OnnxSession, rows: list[kserve.ModelInferRequest], seconds: float) -> float:
    """Rows a second of the runtime alone, in batches of 32 of one length."""
    columns = [
        np.concatenate(
            [np.frombuffer(row.raw_input_contents[place], dtype=np.int64)[None] for row in rows]
        )
        for place in range(3)
    ]
    names = [tensor.name for tensor in rows[0].inputs]
    began, done, start = time.perf_counter(), 0, 0
    while time.perf_counter() - began < seconds:
        batch = {
            name: column[start : start + BATCH] for name, column in zip(names, columns, strict=True)
        }
        done += len(session.run({spec.name: batch[spec.name] for spec in session.inputs})[0])
        start = (start + BATCH) % max(BATCH, len(rows) - BATCH + 1)
    return done / (time.perf_counter() - began)


class PeerAbsent(Exception):
    """A peer cannot run here; the text says why."""


@contextlib.asynccontextmanager
async def _ours(home: Path, threads: int) -> AsyncIterator[Side]:
    port = _free_port()
    environment = os.environ | {
        "PENSTOCK_HOME": str(home),
        "PENSTOCK_LISTEN": f"127.0.0.1:{port}",
        "PENSTOCK_COMPUTE_THREADS": str(threads),
        "PENSTOCK_OTLP_ENDPOINT": "",
        "GRPC_EXPERIMENTS": POLL_WHERE_WAITED,  # as the supervisor and the images start it
    }
    command = [sys.executable, "-m", "penstock.inference_onnx_quantized"]
    async with _served(command, environment, port, MODEL) as side:
        yield side


@contextlib.asynccontextmanager
async def _echo() -> AsyncIterator[Side]:
    port = _free_port()
    command = [sys.executable, "-m", "penstock.bench.serving.echo_server", str(port), str(WIDTH)]
    async with _served(command, dict(os.environ), port, "model") as side:
        yield side


@contextlib.asynccontextmanager
async def _triton(model: Path, threads: int, without: Sequence[str]) -> AsyncIterator[Side]:
    if not PEERS.exists():
        raise PeerAbsent("the peers' environment is not here; `make peers` makes it")
    ask = "import sysconfig; print(sysconfig.get_config_var('LIBDIR'))"
    libraries = subprocess.run(
        [str(PEERS), "-c", ask], capture_output=True, text=True, check=True
    ).stdout.strip()
    ports = [_free_port() for _ in range(3)]
    script = Path(__file__).parents[1] / "peers" / "triton.py"
    command = [
        str(PEERS.absolute()),
        str(script),
        str(model),
        str(threads),
        *map(str, ports),
        *without,
    ]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["LD_LIBRARY_PATH"] = libraries
    environment["PATH"] = f"{PEERS.absolute().parent}:{environment.get('PATH', '')}"
    async with _served(command, environment, ports[0], "model") as side:
        yield side


@contextlib.asynccontextmanager
async def _served(
    command: list[str], environment: dict[str, str], port: int, model: str
) -> AsyncIterator[Side]:
    """A server process that has its model ready; ended afterwards."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                side = Side(kserve_grpc.GRPCInferenceServiceStub(channel), model)
                await _until_ready(side, process)
                yield side
        finally:
            process.terminate()
            await asyncio.to_thread(process.wait)


async def _until_ready(side: Side, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise PeerAbsent(f"it ended while starting, with status {process.returncode}")
        with contextlib.suppress(grpc.aio.AioRpcError):
            if (await side.stub.ModelReady(kserve.ModelReadyRequest(name=side.model))).ready:
                return
        await asyncio.sleep(0.3)
    raise PeerAbsent(f"its model was not ready after {START_S:g} s")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
