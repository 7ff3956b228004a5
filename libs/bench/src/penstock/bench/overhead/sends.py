"""What callers send: each is a function that sends one request and waits for its answer."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import grpc
from penstock.api.inference.v1 import inference_pb2, inference_pb2_grpc
from penstock.api.router.v1 import router_pb2
from penstock.bench.edge.provider import CHAT
from penstock.bench.harness.load import Send
from penstock.bench.hop.benchmark import TEXT
from penstock.bench.overhead.stacks import MODEL, TENANT
from penstock.client import Penstock
from penstock.stack.stack import Stack

MAX_TOKENS = 16


def echo_of(channel: grpc.aio.Channel, text: str = TEXT) -> Send:
    """Sends a text to the bare echo."""
    stub = inference_pb2_grpc.InferenceServiceStub(channel)
    task = inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=[text]))
    request = inference_pb2.ComputeRequest(model="m", task=task)

    async def echo(_: int) -> object:
        return await stub.Compute(request)

    return echo


def miss_of(stack: Stack, text: str = TEXT) -> Send:
    """Sends a text that was never sent, so that cache, limiter, batcher and model are called."""
    options = router_pb2.CallOptions(model=MODEL)
    metadata = stack.metadata(TENANT)
    numbers = itertools.count()

    async def miss(_: int) -> object:
        request = router_pb2.EmbedRequest(options=options, texts=[f"{text} {next(numbers)}"])
        return await stack.router.Embed(request, metadata=metadata)

    return miss


def client_hit_of(client: Penstock, text: str = TEXT) -> Send:
    """Sends the same text each time by the Python client; the router has a copy of the answer."""

    async def client_hit(_: int) -> object:
        return await client.embed([text], model=MODEL)

    return client_hit


def generate_of(stack: Stack, padding: str = "") -> Send:
    """Sends a question that was never asked to the instant provider."""
    options = router_pb2.CallOptions(model=CHAT)
    metadata = stack.metadata(TENANT)
    tasks = question_tasks(padding)

    async def generate(_: int) -> object:
        request = router_pb2.GenerateRequest(options=options, task=next(tasks))
        return await stack.router.Generate(request, metadata=metadata)

    return generate


def question_tasks(padding: str = "") -> Iterator[inference_pb2.GenerateTask]:
    """Questions without end, no two the same, with the padding behind each."""
    for number in _numbers:
        question = f"What is {number} plus one? {padding}".rstrip()
        message = inference_pb2.Message(role=inference_pb2.ROLE_USER, content=question)
        yield inference_pb2.GenerateTask(messages=[message], max_tokens=MAX_TOKENS)


_numbers = itertools.count()
"""Of all questions of this process."""
