"""What a newcomer asks first: a chat, without a model's name or a word of configuration."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.service.default_models import CHAT, ENCODER
from penstock.stack.stack import Stack
from running_stack import stack_in

pytestmark = pytest.mark.processes

LONG_ANSWER_TOKENS = 96
TIMEOUT_S = 60


@pytest.fixture
async def stack(tmp_path: Path, home: Path) -> AsyncIterator[Stack]:
    async with stack_in(tmp_path, home, "cell", chat=True) as running:
        await running.wait_for_instances(CHAT, 1, "acme")
        yield running


def conversation(text: str, max_tokens: int) -> inference_pb2.GenerateTask:
    message = inference_pb2.Message(role=inference_pb2.ROLE_USER, content=text)
    return inference_pb2.GenerateTask(messages=[message], max_tokens=max_tokens)


async def test_chat_and_rerank_work_without_configuration_and_cost_nothing(stack: Stack) -> None:
    metadata = stack.metadata("acme")

    asked = pb.GenerateRequest(task=conversation("What is the capital of France?", 48))
    answer = await stack.router.Generate(asked, metadata=metadata, timeout=TIMEOUT_S)
    assert answer.result.message.content == "The capital of France is Paris."
    assert answer.receipt.model == CHAT
    assert answer.receipt.cost.paid_microusd == 0

    story = conversation("Tell me a long story about a fox.", LONG_ANSWER_TOKENS)
    pieces = [
        piece
        async for piece in stack.router.GenerateStream(
            pb.GenerateStreamRequest(task=story), metadata=metadata, timeout=TIMEOUT_S
        )
    ]
    assert pieces[-1].receipt.usage.output_tokens == LONG_ANSWER_TOKENS
    assert len([piece for piece in pieces if piece.chunk.delta]) > LONG_ANSWER_TOKENS / 2

    documents = ["bread is baked", "the parcel is late"]
    ordered = await stack.router.Rerank(
        pb.RerankRequest(query="where is my order", documents=documents),
        metadata=metadata,
        timeout=TIMEOUT_S,
    )
    assert ordered.receipt.model == ENCODER

    listed = await stack.router.ListModels(pb.ListModelsRequest(), metadata=metadata)
    assert {row.name: row.priced for row in listed.models} == {CHAT: True, ENCODER: True}
