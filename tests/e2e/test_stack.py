"""The whole stack as processes: the README's picture as a test. One stack serves all tests here."""

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
from penstock.stack.shapes import SHAPES
from penstock.stack.stack import Stack
from penstock.stack.traces import fetch_trace, services_in
from running_stack import INSTANCES, KEY, embed, stack_in

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=SHAPES)
async def stack(
    home: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> AsyncIterator[Stack]:
    async with stack_in(tmp_path_factory.mktemp("stack"), home, request.param) as started:
        yield started


async def test_a_text_is_embedded_and_the_receipt_says_how(stack: Stack) -> None:
    answer = await embed(stack, "where is the order that I placed on Tuesday")
    assert len(answer.embeddings[0].values) == 384
    receipt = answer.receipt
    assert receipt.route.instance_id in INSTANCES
    assert receipt.batch.batch_size == 1
    assert receipt.compute_ms > 0
    assert receipt.usage.input_tokens > 5


async def test_a_tenants_first_classify_is_one_trace_through_all_services_of_the_path(
    stack: Stack,
) -> None:
    # The first call of a tenant asks the limiter for a lease, and classify always asks the cache.
    examples = [
        inference_pb2.LabelledExample(label=label, text=text)
        for label, text in (("order", "where is my parcel"), ("refund", "I want my money back"))
    ]
    request = pb.ClassifyRequest(texts=["the parcel is late"], examples=examples)
    answer = await stack.router.Classify(request, metadata=stack.metadata("globex"), timeout=20)
    trace = await fetch_trace(stack, answer.receipt.trace_id, min_services=5)
    path = {"router", "cache", "limiter", "batcher", "inference-onnx-quantized"}
    assert services_in(trace) == path
    assert len([span for span in trace.spans if not span.parent_id]) == 1


async def test_both_instances_serve(stack: Stack) -> None:
    answers = await asyncio.gather(*(embed(stack, f"text number {n}") for n in range(60)))
    assert {answer.receipt.route.instance_id for answer in answers} == set(INSTANCES)


def described(channel: grpc.Channel) -> dict[str, set[str]]:
    """Our services with their methods, as grpcurl's `list` and `describe` read them."""
    database = ProtoReflectionDescriptorDatabase(channel)
    pool = DescriptorPool(database)
    return {
        name: {method.name for method in pool.FindServiceByName(name).methods}
        for name in database.get_services()
        if name.startswith("penstock.")
    }


def call_by_reflection(
    address: str, service: str, method: str, metadata: tuple[tuple[str, str], ...]
) -> object:
    """Call a method with an empty request, as grpcurl would without any proto file."""
    with grpc.insecure_channel(address) as channel:
        assert method in described(channel)[service]
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        descriptor = pool.FindServiceByName(service).methods_by_name[method]
        request = GetMessageClass(descriptor.input_type)()
        response = GetMessageClass(descriptor.output_type)
        call = channel.unary_unary(
            f"/{service}/{method}", type(request).SerializeToString, response.FromString
        )
        return call(request, metadata=metadata, timeout=10)


@pytest.mark.parametrize(
    ("process", "service", "method"),
    [
        ("router", "penstock.api.router.v1.RouterService", "GetScoreboard"),
        ("batcher", "penstock.api.batcher.v1.BatcherService", "ListQueues"),
        ("inference-1", "penstock.api.inference.v1.InferenceService", "ListModels"),
        ("telemetry", "penstock.api.telemetry.v1.TelemetryService", "SearchTraces"),
    ],
)
async def test_a_reflection_client_lists_describes_and_calls(
    stack: Stack, process: str, service: str, method: str
) -> None:
    metadata = (*stack.metadata("acme"), (TOKEN_KEY, stack.internal_token))
    address = stack.addresses[process]
    answer = await asyncio.to_thread(call_by_reflection, address, service, method, metadata)
    assert answer is not None


@pytest.mark.parametrize(
    ("process", "method"),
    [
        ("batcher", "/penstock.api.batcher.v1.BatcherService/ListQueues"),
        ("inference-1", "/penstock.api.inference.v1.InferenceService/ListModels"),
        ("telemetry", "/penstock.api.telemetry.v1.TelemetryService/SearchTraces"),
    ],
)
async def test_internal_ports_refuse_calls_without_the_token(
    stack: Stack, process: str, method: str
) -> None:
    async with grpc.aio.insecure_channel(stack.addresses[process]) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(method)(b"", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_the_python_example_runs_as_its_first_lines_say(stack: Stack) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLES / "embed.py"),
        cwd=ROOT,
        env={
            **os.environ,
            "PENSTOCK_ADDRESS": stack.addresses["router"],
            "PENSTOCK_KEY": KEY,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, output.decode()
    assert "384 values from inference-" in output.decode()
    assert "trace " in output.decode()
