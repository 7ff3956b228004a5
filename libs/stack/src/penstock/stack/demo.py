"""`make demo`: a stack on free ports, 400 agent requests through the public door, what they cost in
time, and one of them as a trace.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import yaml
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.api.telemetry.v1 import telemetry_pb2, telemetry_pb2_grpc
from penstock.cli.waterfall import waterfall
from penstock.rpc.auth import TOKEN_KEY
from penstock.rpc.call import PRIORITIES
from penstock.rpc.peers.stream import open_channel
from penstock.stack import ports
from penstock.stack.demo_parts import PARTS
from penstock.stack.demo_parts.cache import PRICE as SORTER_PRICE
from penstock.stack.demo_parts.limiter import BUDGET as SHORT_BUDGET
from penstock.stack.demo_parts.limiter import TENANT as SHORT
from penstock.stack.demo_parts.scaler import pool
from penstock.stack.demo_parts.upstream import PRICE as CHAT_PRICE
from penstock.stack.log import LogStream
from penstock.stack.stack import Stack, run_stack
from penstock.stack.workload import AGENTS, AgentRequest, agent_requests, labelled_examples
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

MODEL = "all-MiniLM-L6-v2"
CONCURRENT = 8
FIRST = 12
NAMESPACE = f"demo-{time.time_ns()}"
"""The cache outlives a demo: each begins cold."""
DEADLINE_S = 30.0
TRACE_WAIT_S = 10.0


@dataclass(frozen=True)
class Answered:
    """A request that came back: its time at the caller in milliseconds and its receipt."""

    request: AgentRequest
    client_ms: float
    receipt: common_pb2.Receipt


async def demo(home: Path, console: Console) -> dict[str, float]:
    """Run the demo and return its figures; a stack that cannot start shows its log."""
    log = LogStream(console, quiet=True)
    keys = {tenant: f"psk-{tenant}-demo" for tenant in (*(agent.tenant for agent in AGENTS), SHORT)}
    with tempfile.TemporaryDirectory(prefix="penstock-demo-") as folder:
        config_file = Path(folder) / "penstock.yaml"
        config_file.write_text(yaml.safe_dump(_configuration(keys)))
        console.print(
            "[bold]penstock demo[/]: starting the services on free ports, two inference instances"
        )
        try:
            async with run_stack(ports.free(), home, config_file, keys, log) as stack:
                await stack.wait_for_instances(MODEL, stack.plan.instances, AGENTS[0].tenant)
                return await _run(stack, console)
        except BaseException:
            log.replay()
            raise


def _configuration(keys: dict[str, str]) -> dict[str, object]:
    api = [
        {"id": tenant, "organisation": tenant, "sha256": hashlib.sha256(key.encode()).hexdigest()}
        for tenant, key in keys.items()
    ]
    budgets = [
        {
            "name": "tenant-hour",
            "kind": "budget",
            "counts": "tokens",
            "limit": 10_000_000,
            "window": "hour",
        },
        {**SHORT_BUDGET, "organisation": SHORT},
    ]
    prices = [{"name": MODEL, "input_microusd_per_mtok": 20_000}, SORTER_PRICE, CHAT_PRICE]
    return {
        "keys": {"api": api},
        "limits": {"rules": budgets},
        "prices": {"models": prices},
        "scaling": {"pools": [pool()]},
    }


async def _run(stack: Stack, console: Console) -> dict[str, float]:
    answered, errors = await _send_all(stack, console)
    _show(answered, console)
    trace = await _first_trace(stack, answered)
    console.print()
    console.print(waterfall(trace))
    latencies = sorted(item.client_ms for item in answered)
    figures: dict[str, float] = {
        "requests": len(answered) + errors,
        "errors": errors,
        "services_in_trace": len(services_of(trace)),
        "p50_ms": round(statistics.median(latencies), 2),
        "p99_ms": round(latencies[int(0.99 * len(latencies))], 2),
    }
    for name in PARTS:
        part = importlib.import_module(f"penstock.stack.demo_parts.{name}")
        console.rule(f"[bold]{part.TITLE}")
        figures |= await part.run(stack, console)
    return figures


async def _send_all(stack: Stack, console: Console) -> tuple[list[Answered], int]:
    answered: list[Answered] = []
    errors = 0
    waiting = list(agent_requests())
    with Progress(console=console) as progress:
        task = progress.add_task(
            f"{len(waiting)} requests of {len(AGENTS)} tenants", total=len(waiting)
        )

        async def caller() -> None:
            nonlocal errors
            while waiting:
                try:
                    answered.append(await _send(stack, waiting.pop(0)))
                except grpc.aio.AioRpcError as error:
                    errors += 1
                    console.print(f"[red]{error.code().name}[/]: {error.details()}")
                progress.advance(task)

        await asyncio.gather(*(caller() for _ in range(CONCURRENT)))
    return answered, errors


async def _send(stack: Stack, request: AgentRequest) -> Answered:
    options = router_pb2.CallOptions(
        run_id=request.run_id, step=request.step, priority=PRIORITIES[request.priority]
    )
    options.cache.namespace = NAMESPACE
    how = {"metadata": stack.metadata(request.tenant), "timeout": DEADLINE_S}
    began = time.perf_counter()
    if request.task == "embed":
        answer = await stack.router.Embed(
            router_pb2.EmbedRequest(options=options, texts=[request.text]), **how
        )
    else:
        labelled = [
            inference_pb2.LabelledExample(label=label, text=text)
            for label, text in labelled_examples(request.tenant)
        ]
        message = router_pb2.ClassifyRequest(
            options=options, texts=[request.text], examples=labelled
        )
        answer = await stack.router.Classify(message, **how)
    return Answered(request, (time.perf_counter() - began) * 1e3, answer.receipt)


def _show(answered: Sequence[Answered], console: Console) -> None:
    stages = {
        "at the caller": [item.client_ms for item in answered],
        "in the router, all told": [item.receipt.total_ms for item in answered],
        "in the queue": [item.receipt.batch.queued_ms for item in answered],
        "in the model": [item.receipt.compute_ms for item in answered],
    }
    table = Table("where", "p50 ms", "p99 ms", "max ms", title="Latency by stage")
    for name, values in stages.items():
        ordered = sorted(values)
        shown = (statistics.median(ordered), ordered[int(0.99 * len(ordered))], ordered[-1])
        table.add_row(name, *(f"{value:.2f}" for value in shown))
    console.print(table)
    sizes = Counter(item.receipt.batch.batch_size for item in answered)
    shares = Counter(item.receipt.route.instance_id for item in answered)
    console.print(
        "batch sizes: "
        + ", ".join(f"{size} rows × {count}" for size, count in sorted(sizes.items()))
    )
    total = sum(shares.values())
    console.print(
        "instances: "
        + ", ".join(f"{name} {count / total:.0%}" for name, count in sorted(shares.items()))
    )


async def _first_trace(
    stack: Stack, answered: Sequence[Answered]
) -> telemetry_pb2.GetTraceResponse:
    """One of the first requests, which nothing was leased or known for, so that it went to
    everybody who decides.
    """
    best = telemetry_pb2.GetTraceResponse()
    for item in answered[:FIRST]:
        trace = await trace_of(stack, item.receipt.trace_id)
        if len(services_of(trace)) > len(services_of(best)):
            best = trace
    return best


def services_of(trace: telemetry_pb2.GetTraceResponse) -> set[str]:
    """The services whose spans telemetry holds of a trace."""
    return {span.service for span in trace.spans}


async def trace_of(
    stack: Stack, trace_id: str, services: int = 3
) -> telemetry_pb2.GetTraceResponse:
    """A trace as telemetry received it, once spans of so many services are there; what there is
    after ten seconds.
    """
    metadata = ((TOKEN_KEY, stack.internal_token),)
    async with open_channel(stack.addresses["telemetry"]) as channel:
        stub = telemetry_pb2_grpc.TelemetryServiceStub(channel)
        trace = telemetry_pb2.GetTraceResponse()
        end = time.monotonic() + TRACE_WAIT_S
        while time.monotonic() < end and len(services_of(trace)) < services:
            await asyncio.sleep(0.2)
            try:
                trace = await stub.GetTrace(
                    telemetry_pb2.GetTraceRequest(trace_id=trace_id), metadata=metadata, timeout=5
                )
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND:
                    raise
    return trace


def last_line(figures: dict[str, float]) -> str:
    """The demo's last line on standard output."""
    return json.dumps({"bench": "demo", "figures": figures})
