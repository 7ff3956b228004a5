"""Semantic look-ups: they stay within a scope, given vectors are checked, too frequent ones are
refused, and their cost is charged.
"""

from __future__ import annotations

import math
from typing import Any

import grpc
import pytest
from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.cache.build import Models
from penstock.cache.lookups.semantic_lookup import LookupValue, ProbeLimiter
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import Fault
from penstock.testkit.chats import chat, chat_result, look_up_request

JSON = inference_pb2.ResponseFormat(kind=inference_pb2.RESPONSE_FORMAT_KIND_JSON_OBJECT)
ANN = Call(Principal("acme", team="core", tags=("support",)))
SEMANTIC, MISS = common_pb2.CACHE_OUTCOME_SEMANTIC_HIT, common_pb2.CACHE_OUTCOME_MISS
OTHER_SCOPES: dict[str, tuple[Call, dict[str, Any], dict[str, Any]]] = {
    "tenant": (Call(Principal("other", team="core", tags=("support",))), {}, {}),
    "team": (Call(Principal("acme", team="sales", tags=("support",))), {}, {}),
    "role": (Call(Principal("acme", team="core", tags=("admin",))), {}, {}),
    "system prompt": (ANN, {"system": "You are rude."}, {}),
    "tools": (ANN, {"tools": [inference_pb2.Tool(name="find", read_only=True)]}, {}),
    "temperature": (ANN, {"temperature": 0.1}, {}),
    "schema": (ANN, {"response_format": JSON}, {}),
    "model": (ANN, {}, {"model": "chat-2"}),
    "revision": (ANN, {}, {"model": "chat@2"}),
    "namespace": (ANN, {}, {"namespace": "b"}),
}


async def test_answers_do_not_cross_scopes_whatever_the_similarity(rig: Any) -> None:
    """The scope serves these prompts; in another scope each has a similarity of 1 and must miss."""
    cache = await rig.make()
    served = (await rig.teach(cache))[-5:]
    for scope, (call, of_task, more) in OTHER_SCOPES.items():
        for text in served:
            found = await rig.look_up(cache, chat(text, **of_task), call, **more)
            assert found.receipt.outcome == MISS, scope
            assert not found.HasField("result")
    earlier = chat(served[0])
    earlier.generate.messages.add(role=inference_pb2.ROLE_ASSISTANT, content="ok")
    earlier.generate.messages.add(role=inference_pb2.ROLE_USER, content=served[0])
    assert (await rig.look_up(cache, earlier)).receipt.outcome == MISS
    assert [(await rig.look_up(cache, chat(text))).receipt.outcome for text in served].count(
        SEMANTIC
    ) > 2


async def test_a_caller_that_accepts_no_errors_gets_no_semantic_hit(rig: Any) -> None:
    cache = await rig.make()
    served = await rig.teach(cache)
    for text in served[-20:]:
        assert (await rig.look_up(cache, chat(text), max_error_rate=0.0)).receipt.outcome == MISS


@pytest.mark.parametrize(
    ("more", "field", "words"),
    [
        ({"max_error_rate": 1.5}, "max_error_rate", "between"),
        ({"max_error_rate": math.nan}, "max_error_rate", "between"),
        ({"max_age_ms": -1}, "max_age_ms", "negative"),
        ({"price": -1}, "full_price_microusd", "negative"),
        ({"token": b"short"}, "token", "bytes"),
    ],
)
async def test_a_bad_look_up_is_refused_by_field_and_nobody_waits_for_it(
    rig: Any, more: dict[str, Any], field: str, words: str
) -> None:
    cache = await rig.make()
    with pytest.raises(Fault, match=words) as refused:
        await cache.servicer.LookUp(look_up_request(chat("x"), **more), ANN)
    assert (refused.value.code, refused.value.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    assert not cache.statistics.totals.all.lookups_by_rule
    assert cache.pending.waiting_count == 0
    assert (await rig.look_up(cache, chat("x"))).receipt.outcome == MISS


async def test_a_semantic_look_up_is_charged_whether_it_hits_or_misses(rig: Any) -> None:
    cache = await rig.make(lookup_microusd=3)
    missed = await rig.look_up(cache, chat("pay now"))
    assert (missed.receipt.cost_microusd, len(missed.receipt.scope_id)) == (3, 32)
    assert missed.receipt.embed_ms > 0
    (cost,) = missed.savings
    assert (cost.technique, cost.microusd) == ("semantic_cache", -3)
    assert -cost.saved_ms == missed.receipt.lookup_ms >= missed.receipt.embed_ms
    await rig.store(cache, missed, chat_result('{"intent": "pay"}'))
    exact = await rig.look_up(cache, chat("pay now"))
    assert (exact.receipt.cost_microusd, exact.savings[0].microusd) == (0, 400)
    unpriced = await rig.look_up(cache, chat("pay soon"), price=0)
    assert (unpriced.receipt.cost_microusd, list(unpriced.savings)) == (0, [])
    stats = await cache.servicer.GetStats(pb.GetStatsRequest(), ANN)
    assert stats.saved_microusd == 397


async def test_a_semantic_hit_saves_its_entrys_cost_less_the_look_ups(rig: Any) -> None:
    cache = await rig.make(lookup_microusd=3)
    for text in (await rig.teach(cache))[-10:]:
        found = await rig.look_up(cache, chat(text))
        if found.receipt.outcome == SEMANTIC:
            break
    assert (found.receipt.rule, found.savings[0].microusd) == ("semantic", 397)
    assert found.receipt.confidence > 0.5
    assert found.receipt.entry_id


async def test_a_caller_that_tries_many_prompts_is_refused_semantic_look_ups(rig: Any) -> None:
    cache = await rig.make(probes_per_s=5)
    rules = [
        (await rig.look_up(cache, chat(f"guess {number}"))).receipt.rule for number in range(12)
    ]
    assert rules.count("semantic_off: too many look-ups of this caller") >= 5
    other = Call(Principal("other"))
    assert (await rig.look_up(cache, chat("guess 1"), other)).receipt.rule == "miss: nothing near"


def test_a_probe_bucket_refills_and_each_tenant_has_its_own() -> None:
    limiter = ProbeLimiter()
    assert [limiter.take("ann", 3, 10.0) for _ in range(5)] == [True] * 3 + [False] * 2
    assert limiter.take("bob", 3, 10.0)
    assert [limiter.take("ann", 3, 10.5) for _ in range(2)] == [True, False]
    assert [limiter.take("ann", 3, 99.0) for _ in range(5)] == [True] * 3 + [False] * 2


async def test_a_look_up_that_costs_too_much_or_has_a_long_prompt_is_not_semantic(
    rig: Any,
) -> None:
    cache = await rig.make()
    cheap = await rig.look_up(cache, chat("hello"), price=0)
    assert cheap.receipt.rule == "semantic_off: saves less than it costs"
    long = await rig.look_up(cache, chat("x" * 3_000))
    assert long.receipt.rule == "semantic_off: the prompt is too long to compare"
    embed = inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=["a"]))
    assert (await rig.look_up(cache, embed)).receipt.rule == "miss"


async def test_without_an_embedder_every_look_up_is_exact(rig: Any) -> None:
    cache = await rig.open(Models())
    assert (await rig.look_up(cache, chat("x"))).receipt.rule == "semantic_off: no embedder"
    assert (await rig.add(cache, chat("y"), chat_result("z"))).reason == ""


def test_the_value_of_look_ups_follows_the_hit_rate_of_their_scope() -> None:
    value = LookupValue()
    assert not value.exceeds_cost("scope", 3, 1)
    assert value.exceeds_cost("scope", 4, 1)
    for _ in range(200):
        value.record("scope", is_hit=False)
    assert not value.exceeds_cost("scope", 4, 1)
    assert value.exceeds_cost("scope", 21, 1), "a scope without hits is still tried"
    for _ in range(400):
        value.record("scope", is_hit=True)
    assert value.exceeds_cost("scope", 2, 1)
