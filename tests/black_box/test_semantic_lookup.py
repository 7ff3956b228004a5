"""Answers reused for prompts of the same meaning: when they are, and when they must not be."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.testkit.eventually import eventually

from .caching import MISS, SEMANTIC
from .calls import Caller, chat
from .instance import Asked, Serve, prompt_of, said

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="session")]
Pieces = AsyncIterator[inference_pb2.GenerateChunk | inference_pb2.TaskResult]
INTENTS = {
    "block_card": ("block my card", "freeze the card that I lost", "my card was stolen, stop it"),
    "opening_hours": ("when do you open", "what are your opening hours", "are you open at noon"),
    "close_account": ("close my account", "I want to leave your bank", "end my contract with you"),
    "raise_limit": ("raise my limit", "my card limit is too low", "can I get a higher limit"),
}
OPENERS = ("", "hello, ", "hi there, ", "excuse me, ", "good morning, ", "quick question: ")
CLOSERS = ("", " please", ", thank you", " as soon as possible", ", can you help", " if you can")


async def sort_request(asked: Asked) -> Pieces:
    """Sorts a request into its intent, as JSON."""
    intent = next(
        name for name, phrases in INTENTS.items() if any(p in prompt_of(asked) for p in phrases)
    )
    yield said(json.dumps({"intent": intent}), 300, 100)


async def test_a_like_request_is_answered_once_enough_is_known(
    caller: Caller, model: str, serve: Serve
) -> None:
    """Every request is new by its words. What is served by meaning must be the intent's answer."""
    prompts = [
        (f"{opener}{phrases[number % 3]}{closer}", intent)
        for number, opener in enumerate(OPENERS)
        for closer in CLOSERS
        for shift in range(3)
        for intent, phrases in INTENTS.items()
        for phrases in [phrases[shift:] + phrases[:shift]]
    ]
    hits: list[common_pb2.Receipt] = []

    async def ask(prompt: str, intent: str) -> None:
        answer = await caller.generate(chat(prompt, system="Sort."), model=model)
        assert json.loads(answer.result.message.content) == {"intent": intent}
        if answer.receipt.cache.outcome == SEMANTIC:
            hits.append(answer.receipt)

    async with serve(sort_request, model, concurrency=8):
        first = await caller.generate(chat(prompts[0][0], system="Sort."), model=model)
        assert first.receipt.cache.rule == "miss: nothing near"
        for start in range(1, len(prompts), 4):
            await asyncio.gather(*(ask(*pair) for pair in prompts[start : start + 4]))
            if hits:
                break
    assert hits, "nothing was served by meaning"
    receipt = hits[0]
    assert receipt.cache.rule == "semantic"
    assert receipt.cache.scope_id == first.receipt.cache.scope_id
    assert 0.5 < receipt.cache.similarity <= 1
    assert 0.5 < receipt.cache.confidence <= 1
    assert receipt.cache.entry_id
    # asking has cost 2, the answer would have cost 300 + 2 * 100
    assert receipt.cost == common_pb2.Cost(
        paid_microusd=2, saved_microusd=498, full_price_microusd=500
    )
    assert [(row.technique, row.microusd) for row in receipt.savings] == [("semantic_cache", 498)]


async def test_a_prompt_that_contradicts_its_neighbour_is_not_answered_by_it(
    caller: Caller, model: str, serve: Serve
) -> None:
    async def transfer(amount: int) -> common_pb2.CacheReceipt:
        answer = await caller.generate(chat(f"transfer {amount} dollars to Anna"), model=model)
        return answer.receipt.cache

    async def script(asked: Asked) -> Pieces:
        yield said(json.dumps({"prompt": prompt_of(asked)}))

    async with serve(script, model):
        assert (await transfer(1)).rule == "miss: nothing near"
        amounts = iter(range(2, 1000))

        async def gated() -> None:
            receipt = await transfer(next(amounts))
            assert (receipt.outcome, receipt.rule) == (MISS, "gate: number differs")
            assert receipt.similarity > 0.8

        await eventually(gated, every_s=0.1)
