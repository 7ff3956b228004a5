"""The chat model through the whole path against onnxruntime-genai asked directly with the same
folder, in turns: the first token, and tokens a second after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.bench.fresh.direct import MAX_TOKENS
from penstock.onnx.decoder import Decoder
from penstock.service.default_models import CHAT, ENCODER
from penstock.stack import ports
from penstock.stack.configuration import api_key
from penstock.stack.log import LogStream
from penstock.stack.stack import Stack, run_stack
from rich.console import Console

TENANT = "newcomer"
QUESTIONS = (
    "Tell me a story about a fox.",
    "Why is the sky blue?",
    "Explain what a river is.",
    "Write about the history of bread.",
)
"""Each is answered with more tokens than are asked for."""


@dataclass(frozen=True)
class Answer:
    """Seconds to the first piece of text and to the last, and the tokens in between."""

    first_s: float
    last_s: float
    tokens: int

    @property
    def tokens_per_s(self) -> float:
        """Tokens a second after the first."""
        return (self.tokens - 1) / (self.last_s - self.first_s)


Pair = tuple[Answer, Answer]
"""The answer of the whole path and the direct one to the same question."""


@dataclass(frozen=True)
class Comparison:
    """Answers of both sides to every question, by round, and how long each start of the stack took
    until it was ready.
    """

    rounds: Sequence[Sequence[Pair]]
    ready_s: Sequence[float]


def chat_ratios(rounds: Sequence[Sequence[Pair]]) -> dict[str, float]:
    """Medians of the path's tokens a second and time to the first piece, by the direct ones."""
    pairs = [pair for each in rounds for pair in each]
    return {
        "chat_tokens_vs_runtime": statistics.median(
            path.tokens_per_s / direct.tokens_per_s for path, direct in pairs
        ),
        "chat_first_token_vs_runtime": statistics.median(
            path.first_s / direct.first_s for path, direct in pairs
        ),
    }


@dataclass(frozen=True)
class Amount:
    """How often every question is asked of both sides, how often the stack is started before, and
    how many questions there are.
    """

    rounds: int
    starts: int
    questions: int


async def compare(home: Path, folder: Path, amount: Amount) -> Comparison:
    """Start the stack, and ask both sides; `folder` takes the configuration."""
    model = home / "models" / CHAT / "1"
    decoder = Decoder.load(model)
    prompts = {
        question: decoder.encode([("user", question)]) for question in QUESTIONS[: amount.questions]
    }
    del decoder
    ready_s = [await _start_s(home, folder) for _ in range(amount.starts)]
    async with _stack(home, folder) as stack, _direct(model) as process:
        answers = [
            [
                (await _ask(stack, question), await _ask_directly(process, prompt))
                for question, prompt in prompts.items()
            ]
            for _ in range(amount.rounds + 1)
        ]
    return Comparison(answers[1:], ready_s)  # the first round warms both sides up


async def _start_s(home: Path, folder: Path) -> float:
    """Seconds from a start of the stack until it is ready."""
    began_s = time.perf_counter()
    async with _stack(home, folder):
        return time.perf_counter() - began_s


async def _ask(stack: Stack, question: str) -> Answer:
    message = inference_pb2.Message(role=inference_pb2.ROLE_USER, content=question)
    task = inference_pb2.GenerateTask(messages=[message], max_tokens=MAX_TOKENS)
    request = router_pb2.GenerateStreamRequest(task=task)
    request.options.cache.bypass = True
    began_s = time.perf_counter()
    first_s, receipt = 0.0, None
    async for part in stack.router.GenerateStream(request, metadata=stack.metadata(TENANT)):
        if part.chunk.delta:
            first_s = first_s or time.perf_counter() - began_s
        if part.HasField("receipt"):
            receipt = part.receipt
    assert receipt is not None
    return Answer(first_s, time.perf_counter() - began_s, receipt.usage.output_tokens)


async def _ask_directly(process: asyncio.subprocess.Process, prompt: Sequence[int]) -> Answer:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"{json.dumps(list(prompt))}\n".encode())
    await process.stdin.drain()
    return Answer(*json.loads(await process.stdout.readline()))


@contextlib.asynccontextmanager
async def _stack(home: Path, folder: Path) -> AsyncIterator[Stack]:
    """What `make up` runs, on free ports, once it is ready."""
    key = "psk-newcomer"
    config = folder / "penstock.yaml"
    config.write_text(yaml.safe_dump({"keys": {"api": [api_key(TENANT, key)]}}))
    log = LogStream(Console(quiet=True))
    async with run_stack(ports.free(), home, config, {TENANT: key}, log, chat=True) as stack:
        await stack.wait_for_instances(ENCODER, stack.plan.instances, TENANT)
        await stack.wait_for_instances(CHAT, 1, TENANT)
        yield stack


@contextlib.asynccontextmanager
async def _direct(model: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "penstock.bench.fresh.direct", str(model)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()
