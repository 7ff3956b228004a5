"""The servers of the benchmark as processes: ours, Triton, and one without a model."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import grpc
from penstock.api.kserve import inference_pb2 as kserve
from penstock.api.kserve import inference_pb2_grpc as kserve_grpc
from penstock.bench.serving.infer_requests import Server
from penstock.onnx.session import CPU
from penstock.service.free_ports import LOOPBACK, free_port, free_ports
from penstock.stack.process import GRPC_EXPERIMENTS

PEERS_PYTHON = Path(".venv-peers/bin/python")
READY_S = 90.0
POLL_S = 0.3
EMBEDDING_WIDTH = 384


class PeerAbsent(Exception):
    """A server cannot run here; the text says why."""


@contextlib.asynccontextmanager
async def our_server(
    home: Path, model: str, threads: int, **settings: str
) -> AsyncIterator[Server]:
    """Our instance as the supervisor and the images start it, with these settings of its own."""
    port = free_port()
    environment = os.environ | {
        "PENSTOCK_HOME": str(home),
        "PENSTOCK_LISTEN": f"{LOOPBACK}:{port}",
        "PENSTOCK_COMPUTE_THREADS": str(threads),
        "PENSTOCK_MODELS": model,
        "PENSTOCK_OTLP_ENDPOINT": "",
        "GRPC_EXPERIMENTS": GRPC_EXPERIMENTS,
        **{f"PENSTOCK_{key.upper()}": value for key, value in settings.items()},
    }
    command = [sys.executable, "-m", "penstock.inference_onnx_quantized"]
    async with _running(command, environment, port, model) as server:
        yield server


@contextlib.asynccontextmanager
async def echo_server() -> AsyncIterator[Server]:
    """A server without a model, whose answers have the width of the model's."""
    port = free_port()
    module = "penstock.bench.serving.echo_server"
    command = [sys.executable, "-m", module, str(port), str(EMBEDDING_WIDTH)]
    async with _running(command, os.environ, port, "model") as server:
        yield server


@contextlib.asynccontextmanager
async def triton_server(
    model_file: Path,
    threads: int,
    disabled_optimizers: Sequence[str] = (),
    provider: str = CPU,
) -> AsyncIterator[Server]:
    """Triton in the peers' environment, with these optimisers of its runtime disabled, and its
    runtime on this execution provider.

    Raises:
        PeerAbsent: it cannot run here.
    """
    if not PEERS_PYTHON.exists():
        raise PeerAbsent("the peers' environment is not here; `make peers` makes it")
    triton_ports = free_ports(3)
    script = Path(__file__).parents[1] / "peers" / "triton.py"
    python = PEERS_PYTHON.absolute()
    arguments = [str(threads), *map(str, triton_ports), provider, *disabled_optimizers]
    command = [str(python), str(script), str(model_file), *arguments]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["LD_LIBRARY_PATH"] = _library_folder(python)
    environment["PATH"] = f"{python.parent}:{environment.get('PATH', '')}"
    async with _running(command, environment, triton_ports[0], "model") as server:
        yield server


def _library_folder(python: Path) -> str:
    """The folder with that Python's shared library, which Triton loads."""
    code = "import sysconfig; print(sysconfig.get_config_var('LIBDIR'))"
    ended = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True)
    return ended.stdout.strip()


@contextlib.asynccontextmanager
async def _running(
    command: Sequence[str], environment: Mapping[str, str], port: int, model: str
) -> AsyncIterator[Server]:
    """A server process once its model is ready; ended afterwards."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            async with grpc.aio.insecure_channel(f"{LOOPBACK}:{port}") as channel:
                server = Server(kserve_grpc.GRPCInferenceServiceStub(channel), model)
                await _wait_ready(server, process)
                yield server
        finally:
            process.terminate()
            await asyncio.to_thread(process.wait)


async def _wait_ready(server: Server, process: subprocess.Popen[bytes]) -> None:
    request = kserve.ModelReadyRequest(name=server.model)
    end_s = time.monotonic() + READY_S
    while time.monotonic() < end_s:
        if process.poll() is not None:
            raise PeerAbsent(f"it ended while starting, with status {process.returncode}")
        with contextlib.suppress(grpc.aio.AioRpcError):
            if (await server.stub.ModelReady(request)).ready:
                return
        await asyncio.sleep(POLL_S)
    raise PeerAbsent(f"its model was not ready after {READY_S:g} s")
