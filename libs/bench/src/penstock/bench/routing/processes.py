"""Four instances as processes behind a router process: requests a second of two strategies.

The default strategy against the shortest queue. Each instance spends the CPU of a small model on
every request, and the router's own cost counts as well. Sides take turns, often and short, because
a machine's speed changes within seconds; each goes first in every other turn. The figure is the
median of the ratios.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import yaml
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.bench.harness.load import Send, closed_loop
from penstock.bench.harness.options import Options
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault
from penstock.rpc.peers.stream import Peer, connect
from penstock.service.free_ports import free_address
from penstock.service.program import loop_factory
from penstock.stack.configuration import api_key
from penstock.testkit.instance import EmptyInstance
from penstock.testkit.registered import Registration, registered_instance

ROUTER = router_pb2.DESCRIPTOR.services_by_name["RouterService"]
TOKEN, KEY, MODEL = "token-of-the-routing-benchmark", "psk-routing", "burn"
OURS, SHORTEST_QUEUE = "least_added_delay", "least_requests"
INSTANCES = 4
CALLERS = 16
COMPUTE_S = 0.004
CALL_TIMEOUT_S = 20.0
READY_S = 20.0


class BurningInstance(EmptyInstance):
    """Spends CPU on each request, one at a time, as a small model on one core does.

    The time is uniform between half and one and a half times COMPUTE_S.
    """

    def __init__(self) -> None:
        self._busy = asyncio.Lock()
        self._number = 0

    async def Compute(
        self, request: inference_pb2.ComputeRequest, call: Call
    ) -> inference_pb2.ComputeResponse:
        """See InferenceService."""
        async with self._busy:
            end_s = time.thread_time() + COMPUTE_S * (0.5 + self._next_uniform())
            while time.thread_time() < end_s:
                hashlib.sha256(bytes(512)).digest()
            await asyncio.sleep(0)
        result = inference_pb2.TaskResult(revision="burn")
        result.embed.embeddings.add(values=[1.0])
        return inference_pb2.ComputeResponse(result=result)

    def _next_uniform(self) -> float:
        digest = hashlib.sha256(str(self._number).encode()).digest()
        self._number += 1
        return int.from_bytes(digest[:4]) / 2**32


async def _serve(name: str, router_address: str) -> None:
    """Serve an instance until standard input is closed."""
    registration = Registration(name, MODEL, revision="", concurrency=0)
    async with registered_instance(BurningInstance(), registration, router_address, TOKEN):
        await asyncio.to_thread(sys.stdin.read)


@contextlib.contextmanager
def _fleet(strategy: str, folder: Path) -> Iterator[str]:
    """A router with a strategy and four instances; its address."""
    address = free_address()
    config = folder / f"{strategy}.yaml"
    config.write_text(yaml.safe_dump({"keys": {"api": [api_key("bench", KEY)]}}))
    variables = {
        "PENSTOCK_LISTEN": address,
        "PENSTOCK_INTERNAL_TOKEN": TOKEN,
        "PENSTOCK_STRATEGY": strategy,
        "PENSTOCK_LEDGER_URL": "",
        "PENSTOCK_CONFIG_FILE": str(config),
        "PENSTOCK_LOG_LEVEL": "warning",
        "PENSTOCK_DEFAULT_MODEL": MODEL,
        "PENSTOCK_OTLP_ENDPOINT": "",
        "PENSTOCK_DRAIN_S": "0",
        "PENSTOCK_HEDGE_BUDGET": "0",
    }
    router = subprocess.Popen(
        [sys.executable, "-m", "penstock.router"], env={**os.environ, **variables}
    )
    command = [sys.executable, "-m", "penstock.bench.routing.processes"]
    instances = [
        subprocess.Popen([*command, f"i{number}", address], stdin=subprocess.PIPE)
        for number in range(INSTANCES)
    ]
    try:
        yield address
    finally:
        for instance in instances:
            assert instance.stdin is not None
            instance.stdin.close()
            instance.wait(timeout=10)
        router.terminate()
        router.wait(timeout=15)


async def _wait_ready(peer: Peer) -> None:
    """Wait until all instances are registered.

    Raises:
        RuntimeError: they are not in time.
    """
    end_s = time.monotonic() + READY_S
    while time.monotonic() < end_s:
        with contextlib.suppress(Fault):
            board = await peer.call("GetScoreboard", router_pb2.GetScoreboardRequest(), _new_call())
            if len(board.rows) == INSTANCES:
                return
        await asyncio.sleep(0.1)
    raise RuntimeError("the instances have not registered")


def _new_call() -> Call:
    return Call(deadline_s=time.monotonic() + CALL_TIMEOUT_S)


def _send(peer: Peer, request: router_pb2.EmbedRequest) -> Send:
    async def send(_: int) -> object:
        return await peer.call("Embed", request, _new_call())

    return send


async def _compare(options: Options) -> list[float]:
    rounds, seconds = (1, 1.0) if options.quick else (12, 2.5)
    rates: dict[str, list[float]] = {OURS: [], SHORTEST_QUEUE: []}
    request = router_pb2.EmbedRequest(texts=["hello"])
    async with contextlib.AsyncExitStack() as owned:
        folder = Path(owned.enter_context(tempfile.TemporaryDirectory()))
        peers = {}
        for name in rates:
            address = owned.enter_context(_fleet(name, folder))
            peers[name] = connect(address, ROUTER, metadata=(("authorization", f"Bearer {KEY}"),))
            owned.push_async_callback(peers[name].close)
            await _wait_ready(peers[name])
        for number in range(rounds + 1):
            is_warm_up = number == 0 and not options.quick
            for name in sorted(rates, reverse=number % 2 == 0):
                load = await closed_loop(_send(peers[name], request), CALLERS, seconds)
                if not is_warm_up:
                    rates[name].append(load.rps)
    pairs = zip(rates[OURS], rates[SHORTEST_QUEUE], strict=True)
    return [ours / theirs for ours, theirs in pairs]


def measure(options: Options) -> list[float]:
    """Requests a second of the default strategy over those of the shortest queue, by round."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_compare(options))


if __name__ == "__main__":
    grpc.aio.init_grpc_aio()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(sys.argv[1], sys.argv[2]))
