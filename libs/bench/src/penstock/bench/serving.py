"""Our server by KServe v2 against Triton, and against bare onnxruntime in a loop: same model file, same client, same cores.

Each request is one text of 16 tokens. Sides take turns within each round; a figure is the median over the rounds. Triton runs in the
peers' environment (`make peers`); where that is missing its figures are absent. The client runs on the same cores as the servers.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
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
from penstock.bench.load import Measured, closed_loop
from penstock.bench.options import Options
from penstock.bench.report import Bound, Result, Table
from penstock.models.samples import TEXTS
from penstock.onnx.encoder import TextModel
from penstock.onnx.session import OnnxSession

MODEL = "all-MiniLM-L6-v2"
TOKENS, BATCH = 16, 32
CALLERS = (1, 8, 32)
PEERS = Path(".venv-peers/bin/python")
START_S = 90.0
OURS, TRITON = "Penstock", "Triton"


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
    rounds, seconds = (1, 1.0) if options.quick else (5, 4.0)
    measured: dict[tuple[str, int], list[Measured]] = {}
    bare_rps: list[float] = []
    async with contextlib.AsyncExitStack() as stack:
        sides = {OURS: await stack.enter_async_context(_ours(home, threads))}
        notes: tuple[str, ...] = ()
        try:
            sides[TRITON] = await stack.enter_async_context(_triton(folder / "model.onnx", threads))
        except PeerAbsent as absent:
            notes = (f"Triton is absent: {absent}",)
        for side in sides.values():
            await _load(side, rows, 8, 1.0)
        for turn in range(rounds):
            for callers in CALLERS:
                for name in sorted(sides, reverse=bool(turn % 2)):
                    found = await _load(sides[name], rows, callers, seconds)
                    measured.setdefault((name, callers), []).append(found)
            bare_rps.append(await asyncio.to_thread(_bare, bare, rows, seconds))
    return _result(measured, bare_rps, threads, options, notes)


def _result(
    measured: dict[tuple[str, int], list[Measured]],
    bare_rps: list[float],
    threads: int,
    options: Options,
    notes: tuple[str, ...],
) -> Result:
    def ratio(a: Sequence[float], b: Sequence[float]) -> float:
        return statistics.median(x / y for x, y in zip(a, b, strict=True))

    rps = {key: [found.rps for found in runs] for key, runs in measured.items()}
    p50 = {key: [found.p50_ms() for found in runs] for key, runs in measured.items()}
    figures = {"of_bare_runtime": ratio(rps[OURS, 32], bare_rps)}
    if (TRITON, 32) in rps:
        figures["vs_triton_rps"] = ratio(rps[OURS, 32], rps[TRITON, 32])
        figures["vs_triton_p50_at_1"] = ratio(p50[OURS, 1], p50[TRITON, 1])
        figures |= {
            f"vs_triton_rps_at_{callers}": ratio(rps[OURS, callers], rps[TRITON, callers]) for callers in (1, 8)
        }
    rows: list[tuple[str | float, ...]] = [
        (name, callers, statistics.median(rps[name, callers]), statistics.median(p50[name, callers]))
        for name, callers in sorted(rps)
    ]
    rows.append(("onnxruntime in a loop, batches of 32", "–", statistics.median(bare_rps), "–"))
    bounds = {
        "vs_triton_rps": Bound(">=", 1.1),
        "vs_triton_p50_at_1": Bound("<=", 0.6),
        "of_bare_runtime": Bound(">=", 0.75),
    }
    table = Table("Medians of the rounds", ("side", "callers", "requests a second", "p50, ms"), tuple(rows))
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
    texts = list(TEXTS)
    if options.data is not None and options.source("banking77") != "generated":
        with (options.data / "banking77" / "test.csv").open(newline="", encoding="utf-8") as file:
            texts = [row["text"] for row in csv.DictReader(file)]
    chosen = [ids[:TOKENS] for ids, _ in model.encode(texts) if len(ids) >= TOKENS][:256]
    return [_request(np.array([ids], dtype=np.int64)) for ids in chosen]


def _request(ids: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> kserve.ModelInferRequest:
    request = kserve.ModelInferRequest()
    given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    for name, array in given.items():
        request.inputs.add(name=name, datatype="INT64", shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    return request


async def _load(side: Side, rows: list[kserve.ModelInferRequest], callers: int, seconds: float) -> Measured:
    ready = []
    for row in rows:
        request = kserve.ModelInferRequest(model_name=side.model)
        request.MergeFrom(row)
        ready.append(request)
    return await closed_loop(lambda number: side.stub.ModelInfer(ready[number % len(ready)]), callers, seconds)


def _bare(session: OnnxSession, rows: list[kserve.ModelInferRequest], seconds: float) -> float:
    """Rows a second of the runtime alone, in batches of 32 of one length."""
    columns = [
        np.concatenate([np.frombuffer(row.raw_input_contents[place], dtype=np.int64)[None] for row in rows])
        for place in range(3)
    ]
    names = [tensor.name for tensor in rows[0].inputs]
    began, done, start = time.perf_counter(), 0, 0
    while time.perf_counter() - began < seconds:
        batch = {name: column[start : start + BATCH] for name, column in zip(names, columns, strict=True)}
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
    }
    command = [sys.executable, "-m", "penstock.inference_onnx_quantized"]
    async with _served(command, environment, port, MODEL) as side:
        yield side


@contextlib.asynccontextmanager
async def _triton(model: Path, threads: int) -> AsyncIterator[Side]:
    if not PEERS.exists():
        raise PeerAbsent("the peers' environment is not here; `make peers` makes it")
    ask = "import sysconfig; print(sysconfig.get_config_var('LIBDIR'))"
    libraries = subprocess.run([str(PEERS), "-c", ask], capture_output=True, text=True, check=True).stdout.strip()
    ports = [_free_port() for _ in range(3)]
    script = Path(__file__).with_name("serving_triton.py")
    command = [str(PEERS.absolute()), str(script), str(model), str(threads), *map(str, ports)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["LD_LIBRARY_PATH"] = libraries
    environment["PATH"] = f"{PEERS.absolute().parent}:{environment.get('PATH', '')}"
    async with _served(command, environment, ports[0], "model") as side:
        yield side


@contextlib.asynccontextmanager
async def _served(command: list[str], environment: dict[str, str], port: int, model: str) -> AsyncIterator[Side]:
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
