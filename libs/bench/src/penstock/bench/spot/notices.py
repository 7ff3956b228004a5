"""Requests lost when instances get termination notices: a real stack under load, whose scaler
replaces, drains and stops instance after instance.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
import time
from dataclasses import dataclass, field
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
NOTICES, QUICK_NOTICES = 4, 1
NOTICE_S = 120
STEP_TIMEOUT_S = 60.0
POLL_S = 0.1


@dataclass
class RequestLoss:
    """Requests sent and lost during notices, and the circumstances."""

    requests: int = 0
    lost: int = 0
    context: dict[str, object] = field(default_factory=dict)


def measure(options: Options) -> RequestLoss:
    """Send requests while instances get notices; where no stack can run, none, with the reason."""
    home = Path(os.environ.get("PENSTOCK_HOME", ".penstock"))
    notices = QUICK_NOTICES if options.quick else NOTICES
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            return runner.run(_measure(home, notices))
    except CannotStart as error:
        return RequestLoss(context={"notices": f"absent: {error}"})


async def _measure(home: Path, notices: int) -> RequestLoss:
    loss, stop = RequestLoss(), asyncio.Event()
    pool = f"spot-{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix="penstock-spot-") as folder:
        config = Path(folder) / "penstock.yaml"
        config.write_text(yaml.safe_dump(_configuration(pool)))
        log = LogStream(Console(quiet=True), quiet=True)
        async with run_stack(ports.free(), home, config, {TENANT: KEY}, log) as stack:
            await stack.wait_for_instances(MODEL, stack.plan.instances, TENANT)
            await _wait_for(stack, f"{pool}-1", True)
            callers = [
                asyncio.create_task(_send_requests(stack, stop, loss, number))
                for number in range(CALLERS)
            ]
            replaced = [await _notify(stack, pool, number) for number in range(1, notices + 1)]
            stop.set()
            await asyncio.gather(*callers)
    loss.context = {"notices": len(replaced), "replaced": sum(replaced)}
    return loss


def _configuration(pool: str) -> dict[str, object]:
    env = {
        "PENSTOCK_LISTEN": "127.0.0.1:{port}",
        "PENSTOCK_INSTANCE_ID": "{instance}",
        "PENSTOCK_COMPUTE_THREADS": "1",
    }
    command = ["{python}", "-u", "-m", "penstock.inference_onnx_quantized"]
    row = {
        "name": pool,
        "min_instances": 1,
        "max_instances": 2,
        "actuator": {"kind": "process", "command": command, "env": env},
    }
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    key = {"id": TENANT, "organisation": TENANT, "sha256": digest, "priority_ceiling": "critical"}
    return {"keys": {"api": [key]}, "scaling": {"pools": [row]}}


async def _send_requests(stack: Stack, stop: asyncio.Event, loss: RequestLoss, caller: int) -> None:
    """Send one request after the other; count those without a right answer as lost."""
    while not stop.is_set():
        loss.requests += 1
        text = f"request {loss.requests} of caller {caller}"
        request = router_pb2.EmbedRequest(texts=[text])
        try:
            answer = await stack.router.Embed(request, metadata=stack.metadata(TENANT), timeout=30)
            loss.lost += len(answer.embeddings) != 1
        except grpc.aio.AioRpcError:
            loss.lost += 1


async def _notify(stack: Stack, pool: str, number: int) -> bool:
    """Give an instance a notice of two minutes; wait until its replacement serves and it is gone.

    Returns whether a replacement was started.
    """
    async with open_channel(stack.addresses["scaler"]) as channel:
        request = scaler_pb2.NotifyTerminationRequest(
            instance_id=f"{pool}-{number}",
            at_unix_ms=round((time.time() + NOTICE_S) * 1e3),
            source="ec2-spot-notice",
        )
        metadata = ((TOKEN_KEY, stack.internal_token),)
        answer = await scaler_pb2_grpc.ScalerServiceStub(channel).NotifyTermination(
            request, metadata=metadata
        )
    await _wait_for(stack, f"{pool}-{number + 1}", True)
    await _wait_for(stack, f"{pool}-{number}", False)
    return bool(answer.replaced)


async def _wait_for(stack: Stack, instance: str, is_registered: bool) -> None:
    """Wait until the router knows the instance, or no longer does."""
    end_s = time.monotonic() + STEP_TIMEOUT_S
    while time.monotonic() < end_s:
        board = await stack.router.GetScoreboard(
            router_pb2.GetScoreboardRequest(), metadata=stack.metadata(TENANT)
        )
        if (instance in {row.instance.id for row in board.rows}) == is_registered:
            return
        await asyncio.sleep(POLL_S)
    change = "register" if is_registered else "leave"
    raise CannotStart(f"{instance} did not {change} within {STEP_TIMEOUT_S:g} s")
