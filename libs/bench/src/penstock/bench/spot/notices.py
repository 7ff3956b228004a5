"""Requests lost when instances are told to go: a real stack under load, whose scaler replaces,
drains and ends instance after instance.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
import time
from pathlib import Path

import grpc
import yaml
from penstock.api.router.v1 import router_pb2
from penstock.api.scaler.v1 import scaler_pb2, scaler_pb2_grpc
from penstock.bench.harness.options import Options
from penstock.rpc.auth import TOKEN_KEY
from penstock.rpc.peers.stream import open_channel
from penstock.service.program import CannotStart, loop_factory
from penstock.stack import ports
from penstock.stack.log import LogStream
from penstock.stack.stack import Stack, run_stack
from rich.console import Console

TENANT, KEY = "bench", "psk-spot-bench"
MODEL = "all-MiniLM-L6-v2"
CALLERS = 4
STEP_S = 60.0


def measure(options: Options) -> tuple[int, int, dict[str, object]]:
    """(requests lost, requests sent, circumstances); nothing is sent, and it is said so, where no
    stack can run.
    """
    home = Path(os.environ.get("PENSTOCK_HOME", ".penstock"))
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            return runner.run(_measure(home, 1 if options.quick else 4))
    except CannotStart as error:
        return 0, 0, {"notices": f"absent: {error}"}


async def _measure(home: Path, notices: int) -> tuple[int, int, dict[str, object]]:
    pool = f"spot-{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix="penstock-spot-") as folder:
        config = Path(folder) / "penstock.yaml"
        config.write_text(yaml.safe_dump(_configuration(pool)))
        log = LogStream(Console(quiet=True), quiet=True)
        async with run_stack(ports.free(), home, config, {TENANT: KEY}, log) as stack:
            await stack.wait_for_instances(MODEL, stack.plan.instances, TENANT)
            await _wait_for(stack, f"{pool}-1", True)
            stop, counts = asyncio.Event(), [0, 0]
            callers = [
                asyncio.create_task(_caller(stack, stop, counts, number))
                for number in range(CALLERS)
            ]
            replaced = [await _notice(stack, pool, number) for number in range(1, notices + 1)]
            stop.set()
            await asyncio.gather(*callers)
    return counts[1], counts[0], {"notices": len(replaced), "replaced": sum(replaced)}


def _configuration(pool: str) -> dict[str, object]:
    env = {
        "PENSTOCK_LISTEN": "127.0.0.1:{port}",
        "PENSTOCK_INSTANCE_ID": "{instance}",
        "PENSTOCK_COMPUTE_THREADS": "1",
    }
    command = ["{python}", "-u", "-m", "penstock.inference_onnx_quantized"]
    row = {
        "name": pool,
        "least": 1,
        "most": 2,
        "actuator": {"kind": "process", "command": command, "env": env},
    }
    key = {"id": TENANT, "organisation": TENANT, "sha256": hashlib.sha256(KEY.encode()).hexdigest()}
    return {"keys": {"api": [key]}, "scaling": {"pools": [row]}}


async def _caller(stack: Stack, stop: asyncio.Event, counts: list[int], number: int) -> None:
    """Ask one after the other; `counts` are requests sent and those without a right answer."""
    while not stop.is_set():
        counts[0] += 1
        request = router_pb2.EmbedRequest(texts=[f"request {counts[0]} of caller {number}"])
        try:
            answer = await stack.router.Embed(request, metadata=stack.metadata(TENANT), timeout=30)
            counts[1] += len(answer.embeddings) != 1
        except grpc.aio.AioRpcError:
            counts[1] += 1


async def _notice(stack: Stack, pool: str, number: int) -> bool:
    """Say that an instance will go in two minutes; wait until its replacement serves and it is
    gone.
    """
    async with open_channel(stack.addresses["scaler"]) as channel:
        request = scaler_pb2.NotifyTerminationRequest(
            instance_id=f"{pool}-{number}",
            at_unix_ms=round((time.time() + 120) * 1e3),
            source="ec2-spot-notice",
        )
        metadata = ((TOKEN_KEY, stack.internal_token),)
        answer = await scaler_pb2_grpc.ScalerServiceStub(channel).NotifyTermination(
            request, metadata=metadata
        )
    await _wait_for(stack, f"{pool}-{number + 1}", True)
    await _wait_for(stack, f"{pool}-{number}", False)
    return bool(answer.replaced)


async def _wait_for(stack: Stack, instance: str, there: bool) -> None:
    end = time.monotonic() + STEP_S
    while time.monotonic() < end:
        board = await stack.router.GetScoreboard(
            router_pb2.GetScoreboardRequest(), metadata=stack.metadata(TENANT)
        )
        if (instance in {row.instance.id for row in board.rows}) == there:
            return
        await asyncio.sleep(0.1)
    raise CannotStart(f"{instance} did not {'come' if there else 'go'} within {STEP_S:g} s")
