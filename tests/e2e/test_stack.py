"""The services as processes: the README's picture as code.

One stack serves all tests of this file.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.rpc.auth import TOKEN_KEY
from penstock.stack.demo import services_of, trace_of
from penstock.stack.stack import Stack
from running_stack import KEY, embed, stack_in

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(home: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with stack_in(tmp_path_factory.mktemp("stack"), home) as started:
        yield started


async def test_a_text_goes_all_the_way(stack: Stack) -> None:
    answer = await embed(stack, "where is the order that I placed on Tuesday")
    assert len(answer.embeddings[0].values) == 384
    receipt = answer.receipt
    assert receipt.route.instance_id in ("inference-1", "inference-2")
    assert receipt.batch.batch_size == 1
    assert receipt.compute_ms > 0
    assert receipt.usage.input_tokens > 5


async def test_a_first_call_leaves_one_trace_through_every_service_that_decides(
    stack: Stack,
) -> None:
    # The first call of a tenant: the limiter is asked for a lease, and labels are always looked up
    # in the cache.
    examples = [
        inference_pb2.LabelledExample(label=label, text=text)
        for label, text in (("order", "where is my parcel"), ("refund", "I want my money back"))
    ]
    request = pb.ClassifyRequest(texts=["the parcel is late"], examples=examples)
    answer = await stack.router.Classify(request, metadata=stack.metadata("globex"), timeout=20)
    trace = await trace_of(stack, answer.receipt.trace_id, services=5)
    assert services_of(trace) == {
        "router",
        "cache",
        "limiter",
        "batcher",
        "inference-onnx-quantized",
    }
    roots = [span for span in trace.spans if not span.parent_id]
    assert len(roots) == 1


async def test_both_instances_share_the_work(stack: Stack) -> None:
    answers = await asyncio.gather(*(embed(stack, f"text number {number}") for number in range(60)))
    assert {answer.receipt.route.instance_id for answer in answers} == {
        "inference-1",
        "inference-2",
    }


def described(channel: grpc.Channel) -> dict[str, set[str]]:
    """What grpcurl's `list` and `describe` would show: services and their methods."""
    database = ProtoReflectionDescriptorDatabase(channel)
    pool = DescriptorPool(database)
    return {
        name: {method.name for method in pool.FindServiceByName(name).methods}
        for name in database.get_services()
        if name.startswith("penstock.")
    }


@pytest.mark.parametrize(
    ("address", "service", "method"),
    [
        ("router", "penstock.api.router.v1.RouterService", "GetScoreboard"),
        ("batcher", "penstock.api.batcher.v1.BatcherService", "ListQueues"),
        ("inference-1", "penstock.api.inference.v1.InferenceService", "ListModels"),
        ("telemetry", "penstock.api.telemetry.v1.TelemetryService", "SearchTraces"),
    ],
)
async def test_a_reflection_client_lists_describes_and_calls(
    stack: Stack, address: str, service: str, method: str
) -> None:
    def as_grpcurl_would() -> None:
        with grpc.insecure_channel(stack.addresses[address]) as channel:
            assert method in described(channel)[service]
            pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
            found = pool.FindServiceByName(service).methods_by_name[method]
            request, response = (
                GetMessageClass(found.input_type),
                GetMessageClass(found.output_type),
            )
            call = channel.unary_unary(
                f"/{service}/{method}", request.SerializeToString, response.FromString
            )
            metadata = (*stack.metadata("acme"), (TOKEN_KEY, stack.internal_token))
            assert call(request(), metadata=metadata, timeout=10) is not None

    await asyncio.to_thread(as_grpcurl_would)


@pytest.mark.parametrize("address", ["batcher", "inference-1", "telemetry"])
async def test_internal_ports_refuse_strangers(stack: Stack, address: str) -> None:
    methods = {
        "batcher": "/penstock.api.batcher.v1.BatcherService/ListQueues",
        "inference-1": "/penstock.api.inference.v1.InferenceService/ListModels",
        "telemetry": "/penstock.api.telemetry.v1.TelemetryService/SearchTraces",
    }
    async with grpc.aio.insecure_channel(stack.addresses[address]) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(methods[address])(b"", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def example(stack: Stack, *command: str, folder: Path) -> str:
    """Run an example of docs/examples as its first lines say, against this stack."""
    told = {
        "PENSTOCK_ADDRESS": stack.addresses["router"],
        "PENSTOCK_KEY": KEY,
        "PROTOS": str(ROOT / "protos"),
    }
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={**os.environ, **told},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, said.decode()
    return said.decode()


async def test_the_python_example_runs(stack: Stack) -> None:
    said = await example(stack, sys.executable, str(EXAMPLES / "embed.py"), folder=ROOT)
    assert "384 values from inference-" in said
    assert "trace " in said
