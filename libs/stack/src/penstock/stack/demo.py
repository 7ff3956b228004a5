"""`make demo`: a stack on free ports, 400 agent requests, their latencies, and one of them traced.

The parts after the requests (one for each service) are the modules of `demo_parts`.
"""

from __future__ import annotations

import asyncio
import contextlib
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
from penstock.api.telemetry.v1 import telemetry_pb2
from penstock.cli.waterfall import waterfall
from penstock.rpc.call import PRIORITIES
from penstock.stack import ports
from penstock.stack.configuration import api_key
from penstock.stack.demo_parts import PARTS
from penstock.stack.demo_parts.cache import PRICE as CACHE_PART_PRICE
from penstock.stack.demo_parts.limiter import BUDGET, BUDGET_TENANT
from penstock.stack.demo_parts.scaler import Starting, peak_announced, pool
from penstock.stack.demo_parts.upstream import PRICE as UPSTREAM_PART_PRICE
from penstock.stack.log import LogStream
from penstock.stack.plan import DEFAULT_MODEL
from penstock.stack.retrying import with_retries
from penstock.stack.shapes import DEFAULT_LAYOUT, Layout
from penstock.stack.stack import Stack, run_stack
from penstock.stack.traces import fetch_trace, services_in
from penstock.stack.workload import AGENTS, AgentRequest, agent_requests, labelled_examples
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

CALLERS = 8
DEADLINE_S = 30.0
PEAK_ANNOUNCED_BEFORE = "router"
"""The part before which demand is reported to the scaler. Those before it measure the encoder's own
instances, and the scaler starts more of them.
"""
TRACED_REQUESTS = 12
"""The first requests, among which the trace to show is chosen."""
OPENING = (
    "[bold]penstock demo[/]: starting the services on free ports, with two instances of the "
    "encoder and one of the chat model. Calls that are refused for a moment are tried again, as "
    "clients do."
)
CLOSING = """
[bold]What to try next[/]
  make up            the same services on the documented ports, and the console in a browser
  README.md          how to call them: grpcurl, Python, Go, TypeScript
  docs/glossary.md   what the words mean
  make test          every test"""
CACHE_NAMESPACE = f"demo-{time.time_ns()}"
"""New for each demo, because the cache outlives it."""


@dataclass(frozen=True)
class Answered:
    """A request that was answered: its latency at the caller and its receipt."""

    request: AgentRequest
    latency_ms: float
    receipt: common_pb2.Receipt


async def demo(home: Path, console: Console, layout: Layout = DEFAULT_LAYOUT) -> dict[str, float]:
    """Run the demo and return its figures by name; on a failure, print the stack's log first.

    Raises:
        CannotStart: the stack does not start.
    """
    log = LogStream(console, quiet=True)
    tenants = (*(agent.tenant for agent in AGENTS), BUDGET_TENANT)
    keys = {tenant: f"psk-{tenant}-demo" for tenant in tenants}
    with tempfile.TemporaryDirectory(prefix="penstock-demo-") as folder:
        config_file = Path(folder) / "penstock.yaml"
        config_file.write_text(yaml.safe_dump(_configuration(keys)))
        console.print(OPENING)
        started_s = time.perf_counter()
        try:
            async with (
                run_stack(ports.free(), home, config_file, keys, log, layout, chat=True) as stack,
                with_retries(stack) as retrying,
            ):
                await stack.wait_for_instances(
                    DEFAULT_MODEL, stack.plan.instances, AGENTS[0].tenant
                )
                console.print(f"ready after {time.perf_counter() - started_s:.1f} s")
                figures = await _run(retrying, console)
                console.print(CLOSING)
                return figures
        except BaseException:
            log.replay()
            raise


def _configuration(keys: dict[str, str]) -> dict[str, object]:
    wide_budget = {
        "name": "tenant-hour",
        "kind": "budget",
        "counts": "tokens",
        "limit": 10_000_000,
        "window": "hour",
    }
    small_budget = {**BUDGET, "organisation": BUDGET_TENANT}
    default_price = {"name": DEFAULT_MODEL, "input_microusd_per_mtok": 20_000}
    return {
        "keys": {"api": [api_key(tenant, key) for tenant, key in keys.items()]},
        "limits": {"rules": [wide_budget, small_budget]},
        "prices": {"models": [default_price, CACHE_PART_PRICE, UPSTREAM_PART_PRICE]},
        "scaling": {"pools": [pool()]},
    }


async def _run(stack: Stack, console: Console) -> dict[str, float]:
    answered, errors = await _send_all(stack, console)
    _show_latencies(answered, console)
    _show_distribution(answered, console)
    trace = await _most_complete_trace(stack, answered)
    console.print()
    console.print(waterfall(trace))
    latencies = sorted(item.latency_ms for item in answered)
    figures: dict[str, float] = {
        "requests": len(answered) + errors,
        "errors": errors,
        "services_in_trace": len(services_in(trace)),
        "p50_ms": round(statistics.median(latencies), 2),
        "p99_ms": round(_p99(latencies), 2),
    }
    async with contextlib.AsyncExitStack() as owned:
        starting: tuple[Starting, ...] = ()
        for name in PARTS:
            part = importlib.import_module(f"penstock.stack.demo_parts.{name}")
            if name == PEAK_ANNOUNCED_BEFORE:
                starting = (await owned.enter_async_context(peak_announced(stack)),)
            console.rule(f"[bold]{part.TITLE}")
            figures |= await part.run(stack, console, *(starting if name == "scaler" else ()))
    return figures


async def _send_all(stack: Stack, console: Console) -> tuple[list[Answered], int]:
    """Send the whole workload; return what was answered and the number of errors."""
    answered: list[Answered] = []
    errors = 0
    waiting = list(agent_requests())
    with Progress(console=console) as progress:
        bar = progress.add_task(
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
                progress.advance(bar)

        await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return answered, errors


async def _send(stack: Stack, request: AgentRequest) -> Answered:
    started_s = time.perf_counter()
    receipt = await _call(stack, request)
    return Answered(request, (time.perf_counter() - started_s) * 1e3, receipt)


async def _call(stack: Stack, request: AgentRequest) -> common_pb2.Receipt:
    options = router_pb2.CallOptions(
        run_id=request.run_id, step=request.step, priority=PRIORITIES[request.priority]
    )
    options.cache.namespace = CACHE_NAMESPACE
    texts = [request.text]
    metadata = stack.metadata(request.tenant)
    receipt: common_pb2.Receipt
    if request.task == "embed":
        embed = router_pb2.EmbedRequest(options=options, texts=texts)
        receipt = (await stack.router.Embed(embed, metadata=metadata, timeout=DEADLINE_S)).receipt
        return receipt
    examples = [
        inference_pb2.LabelledExample(label=label, text=text)
        for label, text in labelled_examples(request.tenant)
    ]
    classify = router_pb2.ClassifyRequest(options=options, texts=texts, examples=examples)
    receipt = (await stack.router.Classify(classify, metadata=metadata, timeout=DEADLINE_S)).receipt
    return receipt


def _show_latencies(answered: Sequence[Answered], console: Console) -> None:
    receipts = [item.receipt for item in answered]
    places = {
        "at the caller": [item.latency_ms for item in answered],
        "in the router, total": [receipt.total_ms for receipt in receipts],
        "in the batcher's queue": [receipt.batch.queued_ms for receipt in receipts],
        "in the model": [receipt.compute_ms for receipt in receipts],
    }
    table = Table("where", "p50 ms", "p99 ms", "max ms", title="Latency")
    for name, values in places.items():
        row = (statistics.median(values), _p99(values), max(values))
        table.add_row(name, *(f"{value:.2f}" for value in row))
    console.print(table)


def _show_distribution(answered: Sequence[Answered], console: Console) -> None:
    sizes = Counter(item.receipt.batch.batch_size for item in answered)
    instances = Counter(item.receipt.route.instance_id for item in answered)
    shown_sizes = (f"{size} rows × {count}" for size, count in sorted(sizes.items()))
    shown_shares = (
        f"{name} {count / len(answered):.0%}" for name, count in sorted(instances.items())
    )
    console.print("batch sizes: " + ", ".join(shown_sizes))
    console.print("instances: " + ", ".join(shown_shares))


def _p99(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[int(0.99 * len(ordered))]


async def _most_complete_trace(
    stack: Stack, answered: Sequence[Answered]
) -> telemetry_pb2.GetTraceResponse:
    """The trace with the most services among the first requests.

    Later requests draw on a lease and on what the router knows of the cache, so they call fewer
    services.
    """
    first = answered[:TRACED_REQUESTS]
    traces = await asyncio.gather(*(fetch_trace(stack, item.receipt.trace_id) for item in first))
    return max(traces, key=lambda trace: len(services_in(trace)))


def result_line(figures: dict[str, float]) -> str:
    """The last line of the demo's standard output: its figures as JSON."""
    return json.dumps({"bench": "demo", "figures": figures})
