"""Requests of a bank's customers with their intents, and a fake model that knows the intents."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from itertools import product

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.rpc.call import Call
from penstock.testkit.instance import OneByOneInstance

SYSTEM_PROMPT = "Sort the request into one intent. Answer with JSON."
COMPUTE_S = 0.004
CHARACTERS_PER_TOKEN = 4
PROMPT_OVERHEAD_TOKENS = 12
OUTPUT_TOKENS = 8
INTENTS: dict[str, tuple[str, ...]] = {
    "block_card": (
        "block my card",
        "freeze the card that I lost",
        "my card was stolen, stop it",
        "please disable my debit card",
    ),
    "opening_hours": (
        "when do you open",
        "what are your opening hours",
        "until when is the branch open",
        "are you open at noon",
    ),
    "exchange_rate": (
        "what is the exchange rate",
        "how much is the euro in dollars",
        "tell me the currency rates",
        "your rate for pounds",
    ),
    "close_account": (
        "close my account",
        "I want to leave your bank",
        "please delete my account for good",
        "how do I end my contract",
    ),
    "raise_limit": (
        "raise my spending limit",
        "my card limit is too low",
        "let me spend more each month",
        "can I get a higher limit",
    ),
    "change_address": (
        "I moved to a new flat",
        "update my postal address",
        "my address has changed",
        "send letters to my new home",
    ),
    "reset_password": (
        "I forgot my password",
        "reset my login",
        "I cannot sign in any more",
        "help me get back into my account",
    ),
    "order_statement": (
        "send me a statement",
        "I need my statement for taxes",
        "print my statements",
        "mail me my account statement",
    ),
}
PREFIXES = ("", "hello, ", "hi there, ", "excuse me, ", "good morning, ", "quick question: ")
SUFFIXES = (
    "",
    " please",
    ", thank you",
    " as soon as possible",
    ", can you help",
    " if that is possible",
)


def intents_by_text() -> dict[str, str]:
    """Every phrase between every prefix and suffix, and its intent."""
    return {
        f"{prefix}{phrase}{suffix}": intent
        for intent, phrases in INTENTS.items()
        for prefix, phrase, suffix in product(PREFIXES, phrases, SUFFIXES)
    }


class IntentInstance(OneByOneInstance):
    """Answers a chat with the intent of its last message, as a slow and expensive model would.

    Args:
        intents: the intent of each text; other texts raise KeyError.

    Attributes:
        calls: number of tasks computed so far.
    """

    def __init__(self, intents: Mapping[str, str]) -> None:
        self.intents = intents
        self.calls = 0

    async def Compute(self, request: pb.ComputeRequest, call: Call) -> pb.ComputeResponse:
        """See InferenceService."""
        self.calls += 1
        await asyncio.sleep(COMPUTE_S)
        text = request.task.generate.messages[-1].content
        result = pb.TaskResult(revision="demo", compute_ms=COMPUTE_S * 1e3)
        result.generate.message.role = pb.ROLE_ASSISTANT
        result.generate.message.content = json.dumps({"intent": self.intents[text]})
        result.generate.finish_reason = pb.FINISH_REASON_STOP
        result.usage.input_tokens = len(text) // CHARACTERS_PER_TOKEN + PROMPT_OVERHEAD_TOKENS
        result.usage.output_tokens = OUTPUT_TOKENS
        return pb.ComputeResponse(result=result)

    async def ComputeStream(
        self, request: pb.ComputeStreamRequest, call: Call
    ) -> AsyncIterator[pb.ComputeStreamResponse]:
        """See InferenceService; the whole answer is one chunk."""
        answer = await self.Compute(pb.ComputeRequest(task=request.task), call)
        content = answer.result.generate.message.content
        yield pb.ComputeStreamResponse(chunk=pb.GenerateChunk(delta=content))
        yield pb.ComputeStreamResponse(result=answer.result)
