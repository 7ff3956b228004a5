"""The ledger's store stops for a moment, as on a disk that is busy: callers with seconds to spare
are served, late but without an error.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
import yaml
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.rpc.call import PRIORITIES
from penstock.stack import ports
from penstock.stack.log import LogStream
from penstock.stack.shapes import SHAPES, Layout
from penstock.stack.stack import Stack, run_stack
from penstock.stack.workload import AGENTS, AgentRequest, agent_requests, labelled_examples
from rich.console import Console

MODEL = "all-MiniLM-L6-v2"
TENANTS = tuple(agent.tenant for agent in AGENTS)
STALL_S, EVERY_S = 0.3, 1.0
AT_ONCE = 8
pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=SHAPES)
async def stack(
    home: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> AsyncIterator[Stack]:
    folder = tmp_path_factory.mktemp("stalls")
    (folder / "models").symlink_to(home / "models")
    keys = {tenant: f"psk-{tenant}" for tenant in TENANTS}
    api = [
        {
            "id": tenant,
            "organisation": tenant,
            "sha256": hashlib.sha256(key.encode()).hexdigest(),
            "priority_ceiling": "critical",
        }
        for tenant, key in keys.items()
    ]
    budget = {
        "name": "tenant-hour",
        "kind": "budget",
        "counts": "tokens",
        "limit": 10_000_000,
        "window": "hour",
    }
    config = folder / "penstock.yaml"
    config.write_text(yaml.safe_dump({"keys": {"api": api}, "limits": {"rules": [budget]}}))
    async with run_stack(
        ports.free(), folder, config, keys, LogStream(Console(quiet=True)), Layout(request.param)
    ) as started:
        await started.wait_for_instances(MODEL, 2, TENANTS[0])
        yield started


async def stall(stack: Stack) -> None:
    """Stop the store for `STALL_S` every `EVERY_S`, for ever."""
    child = stack.supervisor.child("redis-ledger")
    assert child is not None
    while True:
        os.kill(child.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(STALL_S)
        finally:
            os.kill(child.pid, signal.SIGCONT)
        await asyncio.sleep(EVERY_S - STALL_S)


async def send(stack: Stack, request: AgentRequest) -> None:
    """One request of the demo, under a run of its own: urgent and not, so that many leases have to
    be granted.
    """
    options = pb.CallOptions(
        run_id=request.run_id, step=request.step, priority=PRIORITIES[request.priority]
    )
    metadata = stack.metadata(request.tenant)
    if request.task == "embed":
        await stack.router.Embed(
            pb.EmbedRequest(texts=[request.text], options=options), metadata=metadata, timeout=20
        )
        return
    known = [
        inference_pb2.LabelledExample(label=label, text=text)
        for label, text in labelled_examples(request.tenant)
    ]
    classify = pb.ClassifyRequest(texts=[request.text], examples=known, options=options)
    await stack.router.Classify(classify, metadata=metadata, timeout=20)


async def test_a_store_that_stops_for_300_ms_now_and_then_costs_no_request_of_the_demo(
    stack: Stack,
) -> None:
    waiting, errors = list(agent_requests()), list[str]()

    async def caller() -> None:
        while waiting:
            request = waiting.pop(0)
            try:
                await send(stack, request)
            except grpc.aio.AioRpcError as error:
                errors.append(
                    f"{request.tenant} {request.step}: {error.code().name} {error.details()}"
                )

    stalls = asyncio.create_task(stall(stack))
    try:
        await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
    finally:
        stalls.cancel()
        await asyncio.gather(stalls, return_exceptions=True)
    assert not errors
