"""Storing: which answers are stored, by `Store` after a miss or by `StoreAll` without a look-up."""

from __future__ import annotations

import json
from typing import Any

import grpc
import numpy as np
import pytest
from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.cache.semantic.scope import canonical_answer
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import Fault
from penstock.tasks.kinds import GENERATE
from penstock.testkit.chats import chat, chat_result

ANN = Call(Principal("acme", team="core", tags=("support",)))
EXACT = common_pb2.CACHE_OUTCOME_EXACT_HIT
MISS = common_pb2.CACHE_OUTCOME_MISS


def embed_task(text: str) -> inference_pb2.Task:
    return inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=[text]))


def answer(text: str, **more: Any) -> pb.Answer:
    """An embedding that nobody looked up; `more` are fields of the answer."""
    return pb.Answer(
        scope=pb.Scope(model="mini"),
        task=embed_task(text),
        result=inference_pb2.TaskResult(revision="7"),
        **more,
    )


@pytest.mark.parametrize(
    ("task", "answer", "reason"),
    [
        (chat("a"), chat_result("cut", inference_pb2.FINISH_REASON_LENGTH), "truncated"),
        (chat("a"), chat_result("", inference_pb2.FINISH_REASON_FILTERED), "filtered"),
        (chat("a"), chat_result("", inference_pb2.FINISH_REASON_UNSPECIFIED), "not ended"),
        (chat("a", temperature=0.9), chat_result("x"), "temperature"),
        (chat("a", temperature=0.2), chat_result("x"), ""),
    ],
)
async def test_unfit_answers_are_not_stored(
    rig: Any, task: inference_pb2.Task, answer: inference_pb2.TaskResult, reason: str
) -> None:
    cache = await rig.make()
    stored = await rig.add(cache, task, answer)
    assert (stored.stored, stored.reason) == (not reason, reason or "semantic_off: no judge")
    assert ((await rig.look_up(cache, task)).receipt.outcome == EXACT) is (not reason)


def test_an_answer_at_a_high_temperature_is_stored_where_the_caller_asked_for_it() -> None:
    hot = chat("a", temperature=0.9)
    assert GENERATE.unstorable_because(hot, chat_result("x"), 0.3, asked_for=False) == "temperature"
    assert GENERATE.unstorable_because(hot, chat_result("x"), 0.3, asked_for=True) == ""


def test_a_tool_call_is_stored_only_where_the_tool_is_read_only() -> None:
    call = chat_result("")
    call.generate.message.tool_calls.add(id="1", name="find", arguments_json='{"b": 1, "a": 2}')
    read_only = chat("x", tools=[inference_pb2.Tool(name="find", read_only=True)])
    other = chat("x", tools=[inference_pb2.Tool(name="find")])
    assert GENERATE.unstorable_because(read_only, call, 0.3, asked_for=False) == ""
    assert (
        GENERATE.unstorable_because(other, call, 0.3, asked_for=False)
        == "tool call with side effects"
    )


def test_equal_closed_answers_have_one_canonical_form_and_free_text_has_none() -> None:
    call = chat_result("")
    call.generate.message.tool_calls.add(id="1", name="find", arguments_json='{"b": 1, "a": 2}')
    assert json.loads(canonical_answer(chat("x"), call)) == ["tool", [["find", {"a": 2, "b": 1}]]]
    one, other = chat_result('{"b":1,"a":2}'), chat_result('{"a": 2, "b": 1}')
    assert canonical_answer(chat("x"), one) == canonical_answer(chat("x"), other) != ""
    assert canonical_answer(chat("x"), chat_result("free text")) == ""


async def test_a_token_that_was_not_given_is_refused(rig: Any) -> None:
    cache = await rig.make()
    with pytest.raises(Fault, match="is unknown") as refused:
        await cache.servicer.Store(pb.StoreRequest(token=b"guess"), ANN)
    assert (refused.value.code, refused.value.field) == (grpc.StatusCode.NOT_FOUND, "token")


async def test_a_bad_store_is_refused_by_field_and_its_token_stays_valid(rig: Any) -> None:
    cache = await rig.make()
    missed = await rig.look_up(cache, chat("x"))
    for field, request in (
        ("paid_microusd", pb.StoreRequest(token=missed.token, paid_microusd=-1)),
        ("tags[1]", pb.StoreRequest(token=missed.token, tags=["a", "\x1fnamespace:b"])),
    ):
        with pytest.raises(Fault) as refused:
            await cache.servicer.Store(request, ANN)
        assert refused.value.field == field
    assert (await rig.store(cache, missed, chat_result("x"))).stored


async def test_an_answer_that_nobody_looked_up_is_found_by_its_tenant_only(rig: Any) -> None:
    cache = await rig.make()
    request = pb.StoreAllRequest(answers=[answer("a", tags=["docs"], paid_microusd=3)])
    await cache.servicer.StoreAll(request, ANN)
    hit = await rig.look_up(cache, embed_task("a"), model="mini")
    assert (hit.receipt.outcome, hit.result.revision, hit.savings[0].microusd) == (EXACT, "7", 3)
    stranger = Call(Principal("other"))
    missed = await rig.look_up(cache, embed_task("a"), stranger, model="mini")
    assert missed.receipt.outcome == MISS
    assert cache.statistics.totals.all.lookups_by_rule["miss: known not to be kept"] == 1
    removed = await cache.servicer.Invalidate(pb.InvalidateRequest(tags=["docs"]), ANN)
    assert removed.removed == 1
    assert (await rig.look_up(cache, embed_task("a"), model="mini")).receipt.outcome == MISS


async def test_unfit_answers_of_a_batch_are_left_out_and_the_others_stored(rig: Any) -> None:
    cache = await rig.make(tenant_bytes=65_536)
    truncated = pb.Answer(
        scope=pb.Scope(model="chat"),
        task=chat("hello"),
        result=chat_result("hi", inference_pb2.FINISH_REASON_LENGTH),
    )
    large = answer("b")
    large.result.embed.embeddings.add().values.extend(np.random.default_rng(1).normal(size=30_000))
    request = pb.StoreAllRequest(answers=[truncated, large, answer("a")])
    assert (await cache.servicer.StoreAll(request, ANN)).stored == 1
    assert (await rig.look_up(cache, embed_task("b"), model="mini")).receipt.outcome == MISS
    assert (await rig.look_up(cache, embed_task("a"), model="mini")).receipt.outcome == EXACT


@pytest.mark.parametrize(
    ("call", "answers", "field"),
    [
        (Call(), [answer("a")], "context.principal.organisation"),
        (ANN, [answer("a"), pb.Answer(task=embed_task("b"))], "answers[1].scope.model"),
        (ANN, [pb.Answer(scope=pb.Scope(model="m"))], "answers[0].task"),
        (ANN, [pb.Answer(scope=pb.Scope(model="m"), task=embed_task("b"))], "answers[0].result"),
        (ANN, [answer("a", paid_microusd=-1)], "answers[0].paid_microusd"),
        (ANN, [answer("a", tags=["\x1f"])], "answers[0].tags[0]"),
        (ANN, [pb.Answer()] * 1_001, "answers"),
    ],
)
async def test_a_batch_with_a_bad_answer_is_refused_whole(
    rig: Any, call: Call, answers: list[pb.Answer], field: str
) -> None:
    cache = await rig.make()
    with pytest.raises(Fault) as refused:
        await cache.servicer.StoreAll(pb.StoreAllRequest(answers=answers), call)
    assert (refused.value.code, refused.value.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    assert await rig.client.dbsize() == 0
