"""Affinity over a real router: sessions and prefixes stay where they are warm, and leave when that
costs more than it saves.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.calls.affinity import BLOCK_BYTES, prefix_blocks
from penstock.router.instances.registry import LEARNING
from penstock.router.settings import RouterSettings
from penstock.rpc.call import Call

MODEL = "m"
PROMPT = "You answer for a shop that sells bicycles. " * (4 * BLOCK_BYTES // 40)


class Chat:
    """Answers at once."""

    async def Compute(
        self, request: inference_pb2.ComputeRequest, call: Call
    ) -> inference_pb2.ComputeResponse:
        result = inference_pb2.TaskResult(revision="1", compute_ms=1.0)
        result.generate.message.content = "yes"
        return inference_pb2.ComputeResponse(result=result)

    ComputeStream = ComputeBatch = ListModels = LoadModel = UnloadModel = Compute


@pytest.fixture
async def routed(start_router: Callable[..., Any]) -> AsyncIterator[Any]:
    async with start_router(RouterSettings(default_model=MODEL)) as started:
        for name in "abcd":
            await started.join(name, Chat(), MODEL, concurrency=1)
            started.registry.members[name].successes = 16
        # All count as equally fast: how long a connection took to open is not what is asked here.
        started.registry.fleets[MODEL].learning = replace(LEARNING, calm_band=1e9)
        yield started


def task_of(prompt: str) -> inference_pb2.GenerateTask:
    return inference_pb2.GenerateTask(messages=[inference_pb2.Message(role="user", content=prompt)])


async def served_by(routed: Any, prompt: str = "hello", **options: object) -> str:
    request = pb.GenerateRequest(
        task=task_of(prompt),
        options=pb.CallOptions(**options),  # type: ignore[arg-type]
    )
    answer = await routed.stub.Generate(request, metadata=routed.metadata)
    return str(answer.receipt.route.instance_id)


async def test_calls_of_no_session_go_everywhere(routed: Any) -> None:
    assert {await served_by(routed, f"question {number}") for number in range(60)} == set("abcd")


@pytest.mark.parametrize("options", [{"affinity_key": "session-1"}, {"run_id": "run-1"}])
async def test_a_session_stays_where_it_was(routed: Any, options: dict[str, object]) -> None:
    first = await served_by(routed, **options)
    assert {await served_by(routed, f"question {number}", **options) for number in range(20)} == {
        first
    }


async def test_a_shared_prefix_stays_where_it_is_warm(routed: Any) -> None:
    first = await served_by(routed, PROMPT + "first")
    assert {await served_by(routed, PROMPT + str(number)) for number in range(20)} == {first}


async def test_warmth_is_left_when_the_wait_exceeds_what_it_saves(routed: Any) -> None:
    first = await served_by(routed, affinity_key="s")
    busy = routed.registry.members[first]
    busy.own += 3
    try:
        assert await served_by(routed, affinity_key="s") != first
    finally:
        busy.own -= 3


async def test_an_instance_that_was_started_again_is_cold(routed: Any) -> None:
    first = await served_by(routed, PROMPT, affinity_key="s")
    index = routed.attempts._affinity._prefixes
    blocks = prefix_blocks(MODEL, task_of(PROMPT))
    assert index.matched(first, blocks) == len(blocks) >= 4
    await routed.registry.register(routed.registry.registered[first])
    routed.registry.members[first].successes = 16
    again = {
        await served_by(routed, f"{number} {PROMPT}", affinity_key=f"t{number}")
        for number in range(40)
    }
    assert len(again) > 1
    assert index.matched(first, blocks) == 0
    await served_by(routed, PROMPT)
    routed.attempts.forget(first)
    assert index.matched(first, blocks) == 0
