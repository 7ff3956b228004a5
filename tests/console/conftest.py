"""A stack with the console on free ports, requests that it has served, and a browser.

Tests that need the browser are skipped, with the reason, where there is none.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
import yaml
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.proto.trace.v1 import trace_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.stack import ports
from penstock.stack.log import LogStream
from penstock.stack.stack import Stack, run_stack
from rich.console import Console

from .browser import Page, browsing, executable

KEY = "psk-console"
MODEL = "all-MiniLM-L6-v2"
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(home: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    if not executable():
        pytest.skip("no chromium on this machine; Debian's package is `chromium`")
    folder = tmp_path_factory.mktemp("stack")
    (folder / "models").symlink_to(home / "models")
    config = folder / "penstock.yaml"
    config.write_text(yaml.safe_dump(_configuration()))
    async with run_stack(
        ports.free(), folder, config, {"acme": KEY}, LogStream(Console(quiet=True))
    ) as started:
        await started.wait_for_instances(MODEL, 2, "acme")
        await asyncio.gather(*(_embed(started, number) for number in range(20)))
        for number in range(5):
            await _embed(started, number)
        await _export_failing_service(started.addresses["telemetry"])
        yield started


def _configuration() -> dict[str, object]:
    """One caller with a budget, a price, and a pool that scales soon."""
    key = {
        "id": "console",
        "organisation": "acme",
        "sha256": hashlib.sha256(KEY.encode()).hexdigest(),
    }
    budget = {
        "name": "acme-hour",
        "kind": "budget",
        "counts": "microusd",
        "limit": 1_000_000,
        "window": "hour",
    }
    return {
        "keys": {"api": [key]},
        "limits": {"rules": [budget]},
        "prices": {"models": [{"name": MODEL, "input_microusd_per_mtok": 20_000_000}]},
        "scaling": {"pools": [{"name": MODEL, "interval_s": 1.0, "capacity": 0.001}]},
    }


async def _embed(stack: Stack, number: int) -> None:
    options = pb.CallOptions(run_id=f"run-{number % 3}")
    request = pb.EmbedRequest(options=options, texts=[f"step {number} of an agent"])
    await stack.router.Embed(request, metadata=stack.metadata("acme"), timeout=20)


async def _export_failing_service(address: str) -> None:
    """Spans of a service outside Penstock whose requests begin to fail, for an incident."""
    request = otlp.ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "shop"
    now = time.time_ns()
    for number in range(100):
        span = trace_pb2.Span(
            trace_id=(number + 1).to_bytes(16, "big"),
            span_id=(number + 1).to_bytes(8, "big"),
            name="ShopService/Order",
            kind=trace_pb2.Span.SPAN_KIND_SERVER,
            start_time_unix_nano=now - (100 - number) * 100_000_000,
            end_time_unix_nano=now - (100 - number) * 100_000_000 + 5_000_000,
        )
        if number >= 70:
            span.status.code = trace_pb2.Status.STATUS_CODE_ERROR
        resource.scope_spans.add().spans.append(span)
    async with grpc.aio.insecure_channel(address) as channel:
        await channel.unary_unary(EXPORT)(request.SerializeToString())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def page(stack: Stack) -> AsyncIterator[Page]:
    async with browsing(executable()) as opened:
        yield opened
