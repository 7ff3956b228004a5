"""The price of the path: a bare grpc.aio echo against an answer of an instant model through router and batcher.

Client, echo, router, batcher and model are processes of their own on the same cores. The client calls both sides by a plain unary call
each, in alternating rounds; each figure is the median over the rounds of the ratio inside one round. No cache is in the path.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import statistics
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import yaml
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2, inference_pb2_grpc
from penstock.api.router.v1 import router_pb2, router_pb2_grpc
from penstock.bench.echo import TOKEN, EchoAddresses, echo_process
from penstock.bench.hop import REQUEST, TEXT
from penstock.bench.load import Ask, closed_loop
from penstock.bench.options import Options
from penstock.bench.report import Bound, Result, Table
from penstock.core.hop import open_channel
from penstock.core.program import loop_factory
from penstock.core.registration import Registrar
from penstock.stack import ports
from penstock.stack.log import LogStream
from penstock.stack.plan import StackPlan
from penstock.stack.ready import ready
from penstock.stack.stack import Stack
from penstock.stack.supervisor import Supervisor
from rich.console import Console

KEY = "psk-overhead"
MODEL = "instant"
CALLERS = 64


def run(options: Options) -> Result:
    rounds, seconds = (2, 0.5) if options.quick else (5, 3.0)
    with echo_process() as echo, asyncio.Runner(loop_factory=loop_factory()) as runner:
        rows = runner.run(_measure(echo, rounds, seconds))
    bare_p50, miss_p50, bare_rps, miss_rps = (list(column) for column in zip(*rows, strict=True))
    figures = {
        "bare_rps": statistics.median(bare_rps),
        "bare_p50_ms": statistics.median(bare_p50),
        "miss_separate_p50_ratio": statistics.median(a / b for a, b in zip(miss_p50, bare_p50, strict=True)),
        "miss_separate_rps_ratio": statistics.median(a / b for a, b in zip(miss_rps, bare_rps, strict=True)),
    }
    table = Table(
        "Rounds", ("bare p50 ms", "path p50 ms", "bare rps at 64", "path rps at 64"), tuple(tuple(row) for row in rows)
    )
    context = {
        "callers": f"1 for p50, {CALLERS} for rps",
        "rounds": rounds,
        "data": "one fixed text of 63 bytes",
        "tracing": "off",
    }
    return Result(figures, {"miss_separate_p50_ratio": Bound("<=", 4.5)}, context, (table,))


async def _measure(echo: EchoAddresses, rounds: int, seconds: float) -> list[tuple[float, ...]]:
    async with _path(echo) as stack, open_channel(echo.bare) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        request = router_pb2.EmbedRequest(options=router_pb2.CallOptions(model=MODEL), texts=[TEXT])
        metadata = stack.metadata("bench")

        async def bare(_: int) -> object:
            return await stub.Compute(REQUEST)

        async def path(_: int) -> object:
            return await stack.router.Embed(request, metadata=metadata)

        for side in (bare, path):
            await closed_loop(side, CALLERS, 0.5)
        return [await _round(bare, path, seconds) for _ in range(rounds)]


async def _round(bare: Ask, path: Ask, seconds: float) -> tuple[float, ...]:
    one = [(await closed_loop(side, 1, seconds)).p50_ms() for side in (bare, path)]
    many = [(await closed_loop(side, CALLERS, seconds)).rps for side in (bare, path)]
    return (*one, *many)


@contextlib.asynccontextmanager
async def _path(echo: EchoAddresses) -> AsyncIterator[Stack]:
    """Router and batcher as processes, with the instant model registered; no Redis, no telemetry."""
    with tempfile.TemporaryDirectory(prefix="penstock-overhead-") as folder:
        config = Path(folder) / "penstock.yaml"
        key = {"id": "bench", "organisation": "bench", "sha256": hashlib.sha256(KEY.encode()).hexdigest()}
        config.write_text(yaml.safe_dump({"keys": {"api": [key]}}))
        plan = StackPlan(ports.free(), Path(folder), Path(folder), config, TOKEN)
        supervisor = Supervisor(LogStream(Console(quiet=True)), ready)
        registrar = _registrar(plan, echo)
        try:
            await supervisor.start(plan.bare_path())
            async with open_channel(plan.addresses["router"]) as channel:
                stack = Stack(plan, supervisor, router_pb2_grpc.RouterServiceStub(channel), {"bench": KEY})
                registrar.start()
                await stack.wait_for_instances(MODEL, 1, "bench")
                yield stack
                await registrar.leave()
        finally:
            await supervisor.stop()


def _registrar(plan: StackPlan, echo: EchoAddresses) -> Registrar:
    model = inference_pb2.Model(name=MODEL, state=inference_pb2.MODEL_STATE_READY, tasks=["embed"])
    instance = router_pb2.Instance(id="instant", address=echo.door, models=[model], concurrency=CALLERS)
    return Registrar(plan.addresses["router"], instance, TOKEN, common_pb2.LoadReport)
