"""Four real instances as processes behind a real router: requests a second by the default strategy
against the shortest queue.

Each instance spends the CPU of a small model on every request and the router runs in a process of
its own, so the router's own cost counts. Sides take turns, often and short, because a machine's
speed moves within seconds; each goes first in every other turn. The figure is the median of the
ratios.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.bench.harness.load import Ask, closed_loop
from penstock.bench.harness.options import Options
from penstock.hosting.grpc_server import GrpcServer
from penstock.rpc.auth import internal
from penstock.rpc.call import Call
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.peers.stream import Peer, connect
from penstock.rpc.registration import Registrar
from penstock.service.program import loop_factory
from penstock.service.settings import ServiceSettings
from penstock.testkit.instance import QuietInstance

TOKEN, KEY, MODEL = "token-of-the-routing-benchmark", "psk-routing", "burn"
INFERENCE = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"]
ROUTER = router_pb2.DESCRIPTOR.services_by_name["RouterService"]
INSTANCES = 4
CALLERS = 16
BURN_S = 0.004


class Burner(QuietInstance):
    """Answers after spending CPU, one request at a time, as a small model on one core does."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._noise = iter(
            int.from_bytes(hashlib.sha256(str(i).encode()).digest()[:4]) / 2**32
            for i in range(1 << 30)
        )

    async def Compute(
        self, request: inference_pb2.ComputeRequest, call: Call
    ) -> inference_pb2.ComputeResponse:
        async with self._turn:
            end = time.thread_time() + BURN_S * (0.5 + next(self._noise))
            while time.thread_time() < end:
                hashlib.sha256(bytes(512)).digest()
            await asyncio.sleep(0)
        result = inference_pb2.TaskResult(revision="burn")
        result.embed.embeddings.add(values=[1.0])
        return inference_pb2.ComputeResponse(result=result)


async def _serve(name: str, router: str) -> None:
    server = GrpcServer(
        "burner",
        ServiceSettings(listen="127.0.0.1:0"),
        [Endpoint(INFERENCE, Burner(), internal(TOKEN))],
    )
    await server.start()
    model = inference_pb2.Model(name=MODEL, state=inference_pb2.MODEL_STATE_READY, tasks=["embed"])
    registrar = Registrar(
        router, router_pb2.Instance(id=name, address=server.address, models=[model]), TOKEN
    )
    registrar.start()
    await asyncio.to_thread(sys.stdin.read)
    await registrar.leave()
    await server.stop(None)


@contextlib.contextmanager
def _stack(strategy: str, folder: Path) -> Iterator[str]:
    """A router with four instances; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    config = folder / f"{strategy}.yaml"
    config.write_text(f"keys: {{api: [{{id: bench, sha256: {digest}, organisation: bench}}]}}\n")
    told = {
        "PENSTOCK_LISTEN": address,
        "PENSTOCK_INTERNAL_TOKEN": TOKEN,
        "PENSTOCK_STRATEGY": strategy,
        "PENSTOCK_REDIS_URL": "",
        "PENSTOCK_CONFIG_FILE": str(config),
        "PENSTOCK_LOG_LEVEL": "warning",
        "PENSTOCK_DEFAULT_MODEL": MODEL,
        "PENSTOCK_OTLP_ENDPOINT": "",
        "PENSTOCK_DRAIN_S": "0",
        "PENSTOCK_HEDGE_BUDGET": "0",
    }
    router = subprocess.Popen([sys.executable, "-m", "penstock.router"], env={**os.environ, **told})
    burners = [
        subprocess.Popen(
            [sys.executable, "-m", "penstock.bench.routing.processes", f"i{number}", address],
            stdin=subprocess.PIPE,
        )
        for number in range(INSTANCES)
    ]
    try:
        yield address
    finally:
        for burner in burners:
            assert burner.stdin is not None
            burner.stdin.close()
            burner.wait(timeout=10)
        router.terminate()
        router.wait(timeout=15)


async def _ready(peer: Peer) -> None:
    for _ in range(200):
        with contextlib.suppress(Exception):
            board = await peer.call("GetScoreboard", router_pb2.GetScoreboardRequest(), _call())
            if len(board.rows) == INSTANCES:
                return
        await asyncio.sleep(0.1)
    raise RuntimeError("the instances have not registered")


def _call() -> Call:
    return Call(deadline_s=time.monotonic() + 20.0)


def _ask(peer: Peer, request: router_pb2.EmbedRequest) -> Ask:
    async def ask(_: int) -> object:
        return await peer.call("Embed", request, _call())

    return ask


async def _compare(options: Options) -> float:
    rounds, seconds = (1, 1.0) if options.quick else (12, 2.5)
    rates: dict[str, list[float]] = {"least_added_delay": [], "least_requests": []}
    request = router_pb2.EmbedRequest(texts=["hello"])
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        peers = {}
        for name in rates:
            address = stack.enter_context(_stack(name, Path(folder)))
            peers[name] = connect(address, ROUTER, metadata=(("authorization", f"Bearer {KEY}"),))
            await _ready(peers[name])
        try:
            for number in range(rounds + 1):
                for name in sorted(rates, reverse=number % 2 == 0):
                    took = await closed_loop(_ask(peers[name], request), CALLERS, seconds)
                    if number or options.quick:
                        rates[name].append(took.rps)
        finally:
            for peer in peers.values():
                await peer.close()
    return statistics.median(
        ours / theirs
        for ours, theirs in zip(rates["least_added_delay"], rates["least_requests"], strict=True)
    )


def measure(options: Options) -> float:
    """Requests a second of the default strategy over those of the shortest queue."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_compare(options))


if __name__ == "__main__":
    grpc.aio.init_grpc_aio()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(sys.argv[1], sys.argv[2]))
