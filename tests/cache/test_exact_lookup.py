"""Exact look-ups: the same request has the same answer, and nothing else has it."""

from __future__ import annotations

import time
from typing import Any

import grpc
import pytest
from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import Fault
from penstock.testkit.chats import chat, chat_result, look_up_request
from penstock.testkit.clock import FakeClock

ANN = Call(Principal("acme", team="core", tags=("support",)))
EXACT = common_pb2.CACHE_OUTCOME_EXACT_HIT
MISS = common_pb2.CACHE_OUTCOME_MISS


async def test_the_same_request_is_served_and_the_receipt_says_what_it_saved(rig: Any) -> None:
    cache = await rig.make()
    assert (await rig.add(cache, chat("hello"), chat_result("hi"))).stored
    hit = await rig.look_up(cache, chat("hello"))
    assert (hit.receipt.outcome, hit.receipt.rule) == (EXACT, "exact")
    assert hit.result.generate.message.content == "hi"
    assert (hit.savings[0].technique, hit.savings[0].microusd) == ("exact_cache", 400)
    assert not hit.token


@pytest.mark.fault(24)
@pytest.mark.parametrize(
    ("call", "task", "more"),
    [
        (Call(Principal("other", team="core", tags=("support",))), chat("hello"), {}),
        (Call(Principal("acme", team="sales", tags=("support",))), chat("hello"), {}),
        (Call(Principal("acme", team="core", tags=("admin",))), chat("hello"), {}),
        (ANN, chat("hello", system="You are rude."), {}),
        (ANN, chat("hello", tools=[inference_pb2.Tool(name="find")]), {}),
        (ANN, chat("hello", temperature=0.1), {}),
        (ANN, chat("hello", max_tokens=9), {}),
        (ANN, chat("hello"), {"model": "chat-2"}),
        (ANN, chat("hello"), {"namespace": "b"}),
    ],
)
async def test_answers_do_not_cross_tenants_roles_prompts_tools_parameters_or_models(
    rig: Any, call: Call, task: inference_pb2.Task, more: dict[str, Any]
) -> None:
    cache = await rig.make()
    await rig.add(cache, chat("hello"), chat_result('{"intent": 1}'))
    assert (await rig.look_up(cache, task, call, **more)).receipt.outcome == MISS


async def test_requests_with_different_earlier_turns_are_different(rig: Any) -> None:
    cache = await rig.make()
    first, second = chat("tell me of France"), chat("tell me of Spain")
    for task in (first, second):
        task.generate.messages.add(role=inference_pb2.ROLE_ASSISTANT, content="ok")
        task.generate.messages.add(role=inference_pb2.ROLE_USER, content="what is its capital")
    await rig.add(cache, first, chat_result('{"city": "Paris"}'))
    assert (await rig.look_up(cache, second)).receipt.outcome == MISS


async def test_an_answer_older_than_the_caller_accepts_is_a_miss(rig: Any) -> None:
    clock = FakeClock(time.time())
    cache = await rig.make(clock)
    await rig.add(cache, chat("hello"), chat_result("hi"))
    await clock.advance(0.03)
    found = await rig.look_up(cache, chat("hello"), max_age_ms=60_000)
    assert (found.receipt.outcome, found.receipt.age_ms) == (EXACT, 30)
    assert (await rig.look_up(cache, chat("hello"), max_age_ms=10)).receipt.outcome == MISS


async def test_classification_is_never_served_by_similarity(rig: Any) -> None:
    """No hosted model serves it, and a local model's answer costs less than a semantic look-up."""
    cache = await rig.make()
    task = inference_pb2.Task(classify=inference_pb2.ClassifyTask(texts=["pay now"]))
    missed = await rig.look_up(cache, task)
    assert (missed.receipt.rule, missed.receipt.scope_id) == ("miss", "")
    await rig.store(cache, missed, inference_pb2.TaskResult(revision="7"))
    assert (await rig.look_up(cache, task)).receipt.outcome == EXACT


@pytest.mark.parametrize(
    ("request_", "call", "field"),
    [
        (look_up_request(chat("x")), Call(), "context.principal.organisation"),
        (pb.LookUpRequest(task=chat("x")), ANN, "scope.model"),
        (pb.LookUpRequest(scope=pb.Scope(model="m")), ANN, "task"),
    ],
)
async def test_a_bad_look_up_is_refused_with_the_name_of_its_field(
    rig: Any, request_: pb.LookUpRequest, call: Call, field: str
) -> None:
    cache = await rig.make()
    with pytest.raises(Fault) as refused:
        await cache.servicer.LookUp(request_, call)
    assert (refused.value.code, refused.value.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)
