"""A question to the chat model that runs here, answered token by token, with its receipt."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.service.default_models import CHAT
from penstock.stack.stack import Stack
from rich.console import Console

TITLE = "chat: a model that runs here answers, without a word of configuration"
QUESTION = "What is the capital of France?"
MAX_TOKENS = 48
CALL_TIMEOUT_S = 60


async def run(stack: Stack, console: Console) -> dict[str, float]:
    """Ask, and print the answer as it grows."""
    await stack.wait_for_instances(CHAT, 1, next(iter(stack.keys)))
    console.print(f"[bold]{QUESTION}[/]")
    started_s = time.perf_counter()
    first_s = 0.0
    receipt = common_pb2.Receipt()
    async for message in _answer(stack):
        if message.chunk.delta:
            first_s = first_s or time.perf_counter() - started_s
            console.print(message.chunk.delta, end="", markup=False)
        if message.HasField("receipt"):
            receipt = message.receipt
    console.print()
    _show(receipt, first_s, console)
    return {"chat_first_token_ms": round(first_s * 1e3, 1)}


def _answer(stack: Stack) -> AsyncIterator[router_pb2.GenerateStreamResponse]:
    message = inference_pb2.Message(role=inference_pb2.ROLE_USER, content=QUESTION)
    task = inference_pb2.GenerateTask(messages=[message], max_tokens=MAX_TOKENS)
    request = router_pb2.GenerateStreamRequest(task=task)
    request.options.cache.bypass = True
    metadata = stack.metadata(next(iter(stack.keys)))
    stream: AsyncIterator[router_pb2.GenerateStreamResponse] = stack.router.GenerateStream(
        request, metadata=metadata, timeout=CALL_TIMEOUT_S
    )
    return stream


def _show(receipt: common_pb2.Receipt, first_s: float, console: Console) -> None:
    usage = receipt.usage
    console.print(
        f"{receipt.model} on {receipt.route.instance_id}: {usage.input_tokens} tokens in, "
        f"{usage.output_tokens} out, the first after {first_s * 1e3:.0f} ms, "
        f"{receipt.total_ms:.0f} ms in all, {receipt.cost.paid_microusd} micro-dollars"
    )
