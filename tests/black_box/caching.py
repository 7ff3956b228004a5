"""What tests of caching share: waiting for an answer to be kept, or seeing that it never is."""

from __future__ import annotations

from typing import Any

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.testkit.eventually import eventually

from .calls import Caller, chat
from .instance import ScriptedInstance

MISS, EXACT = common_pb2.CACHE_OUTCOME_MISS, common_pb2.CACHE_OUTCOME_EXACT_HIT
SEMANTIC, COALESCED = common_pb2.CACHE_OUTCOME_SEMANTIC_HIT, common_pb2.CACHE_OUTCOME_COALESCED
BYPASSED = common_pb2.CACHE_OUTCOME_BYPASSED


async def kept(caller: Caller, instance: ScriptedInstance, prompt: str, **fields: Any) -> Any:
    """Ask until the answer comes from what is kept: storing follows the answer."""

    async def hit() -> Any:
        answer = await caller.generate(chat(prompt), **fields)
        assert answer.receipt.cache.outcome == EXACT
        return answer

    asked = len(instance.asked)
    answer = await eventually(hit)
    assert len(instance.asked) <= asked + 1
    return answer


async def never_kept(caller: Caller, task: inference_pb2.GenerateTask, **fields: Any) -> None:
    """Ask three times, with time for storing between: none may come from what is kept."""
    for _ in range(3):
        answer = await caller.generate(task, **fields)
        assert answer.receipt.cache.outcome in (MISS, BYPASSED)
        await settled(caller, fields["model"])


async def settled(caller: Caller, model: str) -> None:
    """Wait until nothing is held for the caller: what follows its answers has been done by then."""

    async def free() -> None:
        rows = await caller.api.ledger(caller.key, model)
        assert not any(row.held for row in rows.values())

    await eventually(free)
