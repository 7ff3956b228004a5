"""Asking for likeness: nothing crosses a scope, ready vectors are checked, asking too often is
refused, and its cost is booked.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any

import grpc
import pytest
from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.cache.semantic.lookup_value import Probes, Worth
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import Fault
from penstock.testkit.chats import chat, chat_result, look_up_request

ANN = Call(Principal("acme", team="core", tags=("support",)))
SEMANTIC, MISS = common_pb2.CACHE_OUTCOME_SEMANTIC_HIT, common_pb2.CACHE_OUTCOME_MISS
ELSEWHERE: dict[str, tuple[Call, dict[str, Any], dict[str, Any]]] = {
    "tenant": (Call(Principal("other", team="core", tags=("support",))), {}, {}),
    "team": (Call(Principal("acme", team="sales", tags=("support",))), {}, {}),
    "role": (Call(Principal("acme", team="core", tags=("admin",))), {}, {}),
    "system prompt": (ANN, {"system": "You are rude."}, {}),
    "tools": (ANN, {"tools": [inference_pb2.Tool(name="find", read_only=True)]}, {}),
    "temperature": (ANN, {"temperature": 0.1}, {}),
    "schema": (ANN, {"response_schema_json": "{}"}, {}),
    "model": (ANN, {}, {"model": "chat-2"}),
    "revision": (ANN, {}, {"model": "chat@2"}),
    "namespace": (ANN, {}, {"namespace": "b"}),
}


async def test_nothing_crosses_a_scope_that_serves_whatever_the_similarity(rig: Any) -> None:
    """The scope serves these very prompts by likeness; asked from elsewhere, each has a similarity
    of 1 and must miss.
    """
    cache = await rig.make()
    served = (await rig.warm(cache))[-5:]
    for what, (call, of_task, more) in ELSEWHERE.items():
        for text in served:
            found = await rig.look(cache, chat(text, **of_task), call, **more)
            assert found.receipt.outcome == MISS, what
            assert not found.HasField("result")
    earlier = chat(served[0])
    earlier.generate.messages.add(role="assistant", content="ok")
    earlier.generate.messages.add(role="user", content=served[0])
    assert (await rig.look(cache, earlier)).receipt.outcome == MISS
    assert [(await rig.look(cache, chat(text))).receipt.outcome for text in served].count(
        SEMANTIC
    ) > 2


async def test_a_caller_who_wants_no_errors_is_served_by_likeness_never(rig: Any) -> None:
    cache = await rig.make()
    served = await rig.warm(cache)
    for text in served[-20:]:
        assert (await rig.look(cache, chat(text), max_error_rate=0.0)).receipt.outcome == MISS


async def test_a_ready_vector_is_used_as_it_is(rig: Any) -> None:
    cache = await rig.make()
    await rig.keep(cache, chat("pay now"), chat_result('{"intent": "pay"}'))
    await rig.until(lambda: bool(rig.tiers[0].scopes()))
    vector = 3 * rig.embed("pay now")  # any length will do
    found = await rig.look(
        cache, chat("entirely different"), vector=vector, embedder_revision="words@1"
    )
    assert found.receipt.similarity == pytest.approx(1.0, abs=1e-5)
    assert found.receipt.embed_ms == 0
    embedded = await rig.look(cache, chat("entirely unlike"))
    assert embedded.receipt.similarity < 0.9
    assert embedded.receipt.embed_ms > 0


@pytest.mark.parametrize(
    ("more", "field", "said_"),
    [
        ({"vector": [1.0] * 16, "embedder_revision": "words@2"}, "embedder_revision", "'words@1'"),
        ({"vector": [1.0] * 16}, "embedder_revision", "is ''"),
        ({"vector": [1.0] * 15, "embedder_revision": "words@1"}, "vector", "15"),
        ({"vector": [0.0] * 16, "embedder_revision": "words@1"}, "vector", "direction"),
        ({"vector": [math.nan] * 16, "embedder_revision": "words@1"}, "vector", "direction"),
        ({"embedder_revision": "words@1"}, "vector", "empty"),
        ({"max_error_rate": 1.5}, "max_error_rate", "between"),
        ({"max_error_rate": math.nan}, "max_error_rate", "between"),
        ({"max_age_ms": -1}, "max_age_ms", "negative"),
        ({"price": -1}, "full_price_microusd", "negative"),
        ({"token": b"short"}, "token", "bytes"),
    ],
)
async def test_what_cannot_be_is_refused_by_field_and_nothing_is_owed(
    rig: Any, more: dict[str, Any], field: str, said_: str
) -> None:
    cache = await rig.make()
    with pytest.raises(Fault, match=said_) as refused:
        await cache.LookUp(look_up_request(chat("x"), **more), ANN)
    assert (refused.value.code, refused.value.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    assert not cache.tally.all.rules
    assert cache.waiting == 0
    assert (
        await rig.look(cache, chat("x"))
    ).receipt.outcome == MISS  # nobody waits for the one who was refused


async def test_asking_for_likeness_is_booked_for_misses_and_hits(rig: Any) -> None:
    cache = await rig.make(lookup_microusd=3)
    missed = await rig.look(cache, chat("pay now"))
    assert (missed.receipt.cost_microusd, len(missed.receipt.scope_id)) == (3, 32)
    assert missed.receipt.embed_ms > 0
    (cost,) = missed.savings
    assert (cost.technique, cost.microusd) == ("semantic_cache", -3)
    assert -cost.saved_ms == missed.receipt.lookup_ms >= missed.receipt.embed_ms
    await rig.store(cache, missed, chat_result('{"intent": "pay"}'))
    exact = await rig.look(cache, chat("pay now"))
    assert (exact.receipt.cost_microusd, exact.savings[0].microusd) == (0, 400)
    unpriced = await rig.look(cache, chat("pay soon"), price=0)
    assert (unpriced.receipt.cost_microusd, list(unpriced.savings)) == (0, [])
    stats = await cache.GetStats(pb.GetStatsRequest(), ANN)
    assert stats.saved_microusd == 397


async def test_a_hit_by_likeness_saves_what_its_entry_cost_less_asking(rig: Any) -> None:
    cache = await rig.make(lookup_microusd=3)
    for text in (await rig.warm(cache))[-10:]:
        found = await rig.look(cache, chat(text))
        if found.receipt.outcome == SEMANTIC:
            break
    assert (found.receipt.rule, found.savings[0].microusd) == ("semantic", 397)
    assert found.receipt.confidence > 0.5
    assert found.receipt.entry_id


async def test_near_duplicates_are_not_to_be_probed_for(rig: Any) -> None:
    cache = await rig.make(probes_per_s=5)
    rules = [(await rig.look(cache, chat(f"guess {number}"))).receipt.rule for number in range(12)]
    assert rules.count("semantic_off: too many look-ups of this caller") >= 5
    other = Call(Principal("other"))
    assert (await rig.look(cache, chat("guess 1"), other)).receipt.rule == "miss: nothing near"


def test_a_bucket_of_probes_fills_again_and_is_each_callers_own() -> None:
    probes = Probes()
    assert [probes.may("ann", 3, 10.0) for _ in range(5)] == [True] * 3 + [False] * 2
    assert probes.may("bob", 3, 10.0)
    assert [probes.may("ann", 3, 10.5) for _ in range(2)] == [True, False]
    assert [probes.may("ann", 3, 99.0) for _ in range(5)] == [True] * 3 + [False] * 2


def test_likeness_is_asked_for_where_it_pays_by_what_it_has_brought() -> None:
    worth = Worth()
    assert not worth.pays("scope", 3, 1)
    assert worth.pays("scope", 4, 1)
    for _ in range(200):
        worth.asked("scope", hit=False)
    assert not worth.pays("scope", 4, 1)
    assert worth.pays("scope", 21, 1), "and never so little that it would not be tried again"
    for _ in range(400):
        worth.asked("scope", hit=True)
    assert worth.pays("scope", 2, 1)


async def test_idle_small_scopes_leave_memory_and_come_back_whole(
    rig: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.cache.semantic.semantic_cache.SCOPES_IN_MEMORY", 2)
    cache = await rig.make()
    tier = rig.tiers[0]
    lessons = 0
    for system in ("first", "second"):
        for text in ("pay now", "pay soon", "lost card"):
            await rig.keep(cache, chat(text, system), chat_result('{"intent": "pay"}'))
            lessons += 1
            await rig.until(lambda: sum(len(held.index) for held in tier.scopes()) == lessons)  # noqa: B023
    _, second = tier.names()
    await rig.look(cache, chat("pay late", "first"))
    await rig.keep(cache, chat("pay now", "third"), chat_result('{"intent": "pay"}'))
    await rig.until(lambda: second not in tier.names())
    missed = await rig.look(cache, chat("pay later", "second"))
    assert missed.receipt.rule == "miss: the scope is being read again"
    await rig.until(lambda: second in tier.names())
    found = await rig.look(cache, chat("pay latest", "second"))
    assert found.receipt.rule == "miss: learning"
    (held,) = (held for name, held in tier._scopes.items() if name == second)
    assert (len(held.index), held.learnt.calibration.labels) == (3, 2)


async def test_lessons_of_a_scope_that_is_away_wait_for_it(
    rig: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.cache.semantic.semantic_cache.SCOPES_IN_MEMORY", 1)
    cache, other = await rig.make(), await rig.make()
    tier = rig.tiers[0]
    await rig.keep(cache, chat("pay now", "first"), chat_result('{"intent": "pay"}'))
    await rig.until(lambda: len(tier.scopes()) == 1)
    (first,) = tier.names()
    await rig.keep(cache, chat("pay now", "second"), chat_result('{"intent": "pay"}'))
    await rig.until(lambda: first not in tier.names())
    await rig.keep(other, chat("pay soon", "first"), chat_result('{"intent": "pay"}'))
    await rig.until(lambda: tier._away_ids == 2)
    await rig.look(cache, chat("pay never", "first"))
    await rig.until(lambda: first in tier.names())
    await rig.until(lambda: [len(held.index) for held in tier.scopes()] == [2])


async def test_a_scope_that_is_not_used_for_an_hour_leaves(rig: Any) -> None:
    from penstock.testkit.clock import FakeClock

    clock = FakeClock(1e9)
    cache = await rig.make(clock)
    tier = rig.tiers[0]
    await rig.keep(cache, chat("pay now"), chat_result('{"intent": "pay"}'))
    await rig.until(lambda: len(tier.scopes()) == 1)
    await clock.advance(3_500)
    await asyncio.sleep(0)
    assert len(tier.scopes()) == 1
    await clock.advance(200)
    await rig.until(lambda: not tier.scopes())
