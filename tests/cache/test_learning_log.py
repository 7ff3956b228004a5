"""The learning log: replicas agree, restarts forget nothing, and idle scopes leave memory and are
rebuilt.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.cache.build import Cache
from penstock.cache.semantic.learning_log import (
    LEARN,
    STREAM,
    WRONG,
    LearningEvent,
    LearningLog,
    LoggedEvent,
    RecordedDecision,
)
from penstock.cache.semantic.scopes import ScopeState
from penstock.cache.semantic.semantic_cache import SemanticCache
from penstock.rpc.call import Call, Principal
from penstock.testkit.chats import chat, chat_result
from penstock.testkit.clock import FakeClock
from penstock.testkit.eventually import eventually

ANN = Call(Principal("acme", team="core", tags=("support",)))
PAY = chat_result('{"intent": "pay"}')
LOST = chat_result('{"intent": "lost"}')


def semantic(cache: Cache) -> SemanticCache:
    assert cache.semantic_cache is not None
    return cache.semantic_cache


def scope_sizes(cache: Cache) -> list[int]:
    """Entries of each scope in memory."""
    return [len(scope) for scope in semantic(cache).loaded_scopes]


async def test_an_event_is_read_as_it_was_appended(rig: Any) -> None:
    log = LearningLog(rig.client, 1 << 20)
    features = (0.5, 1.0)
    decision = RecordedDecision('["json",1]', 0.9, True, features, "number differs", True, -0.25)
    vector = np.arange(4, dtype=np.float32)
    learnt = LearningEvent(
        LEARN, "acme", "scope", "key", "text", "answer", vector, decision, "n", "m", b"\x01"
    )
    reported = LearningEvent(
        WRONG, "acme", "scope", "key", decision=RecordedDecision("answer", 0.5)
    )
    await log.append(learnt)
    await log.append(reported)
    first, second = await log.read_after("0", None)
    assert first.event.vector is not None
    assert first.event.vector.tolist() == vector.tolist()
    assert (first.event.answer, first.event.decision) == ("answer", decision)
    assert (first.event.namespace, first.event.context_sha256) == ("n", b"\x01")
    assert second.event == reported
    assert [one.event_id for one in await log.read([second.event_id])] == [second.event_id]
    assert await log.contains(first.event_id)
    assert not await log.contains("1-1")


async def test_replicas_agree_and_a_restart_forgets_nothing(rig: Any) -> None:
    cache = await rig.make()
    assert len(await rig.teach(cache)) > 50
    restarted = await rig.make()
    await eventually(lambda: scope_sizes(cache) == scope_sizes(restarted))
    (old,), (new,) = semantic(cache).loaded_scopes, semantic(restarted).loaded_scopes
    assert old.policy.calibration.label_count == new.policy.calibration.label_count > 150
    stats = await restarted.servicer.GetStats(pb.GetStatsRequest(), ANN)
    assert stats.entries > 100


async def test_after_a_gap_in_the_log_scopes_are_relearnt_from_what_it_holds(rig: Any) -> None:
    cache = await rig.make()
    for number in range(3):
        await rig.add(cache, chat(f"pay {number}"), PAY)
    await rig.until_learnt(cache, 3)
    await rig.client.delete(STREAM)  # as a trim of unread events does, or the loss of the store
    await rig.add(cache, chat("lost card"), LOST)
    await rig.until_learnt(cache, 1)
    await rig.add(cache, chat("lost cards"), LOST)
    await rig.until_learnt(cache, 2)


async def test_the_least_recently_used_scope_leaves_memory_first(rig: Any) -> None:
    cache = await rig.make(max_loaded_scopes=2)
    for number, system in enumerate(("first", "second")):
        await rig.add(cache, chat("pay now", system), PAY)
        await rig.until_learnt(cache, number + 1)
    first, second = semantic(cache).loaded_scope_keys
    await rig.look_up(cache, chat("pay soon", "first"))
    await rig.add(cache, chat("pay now", "third"), PAY)
    await eventually(lambda: second not in semantic(cache).loaded_scope_keys)
    assert first in semantic(cache).loaded_scope_keys


async def test_a_scope_that_left_memory_is_rebuilt_when_it_is_asked_for(rig: Any) -> None:
    cache = await rig.make(max_loaded_scopes=2)
    entries = 0
    for system in ("first", "second"):
        for text in ("pay now", "pay soon", "lost card"):
            await rig.add(cache, chat(text, system), PAY)
            entries += 1
            await rig.until_learnt(cache, entries)
    _, second = semantic(cache).loaded_scope_keys
    await rig.look_up(cache, chat("pay late", "first"))
    await rig.add(cache, chat("pay now", "third"), PAY)
    await eventually(lambda: second not in semantic(cache).loaded_scope_keys)
    missed = await rig.look_up(cache, chat("pay later", "second"))
    assert missed.receipt.rule == "miss: the scope is being read again"
    await eventually(lambda: second in semantic(cache).loaded_scope_keys)
    found = await rig.look_up(cache, chat("pay latest", "second"))
    assert found.receipt.rule == "miss: learning"
    scopes = zip(semantic(cache).loaded_scope_keys, semantic(cache).loaded_scopes, strict=True)
    rebuilt = dict(scopes)[second]
    assert (len(rebuilt), rebuilt.policy.calibration.label_count) == (3, 2)


async def test_events_of_an_unloaded_scope_are_learnt_when_it_is_rebuilt(rig: Any) -> None:
    cache = await rig.make(max_loaded_scopes=1)
    other = await rig.make(max_loaded_scopes=1)
    await rig.add(cache, chat("pay now", "first"), PAY)
    await rig.until_learnt(cache, 1)
    (first,) = semantic(cache).loaded_scope_keys
    await rig.add(cache, chat("pay now", "second"), PAY)
    await eventually(lambda: first not in semantic(cache).loaded_scope_keys)
    await rig.add(other, chat("pay soon", "first"), PAY)
    await eventually(lambda: semantic(cache).unloaded_event_count == 2)
    await rig.look_up(cache, chat("pay never", "first"))
    await eventually(lambda: first in semantic(cache).loaded_scope_keys)
    await eventually(lambda: scope_sizes(cache) == [2])


async def test_a_small_scope_leaves_memory_after_an_hour_without_use(rig: Any) -> None:
    clock = FakeClock(1e9)
    cache = await rig.make(clock)
    await rig.add(cache, chat("pay now"), PAY)
    await rig.until_learnt(cache, 1)
    await clock.advance(3_500)
    await rig.add(cache, chat("pay now", "other"), PAY)
    await rig.until_learnt(cache, 2)
    await clock.advance(200)
    await eventually(lambda: scope_sizes(cache) == [1])


def test_a_scope_beyond_its_limit_forgets_its_oldest_entry() -> None:
    vectors = np.eye(3, dtype=np.float32)
    events = [
        LearningEvent(LEARN, "acme", "scope", f"key {at}", f"text {at}", "answer", vectors[at])
        for at in range(3)
    ]
    scope = ScopeState(3, 0.03, 2, events[0])
    for at, event in enumerate(events):
        scope.apply(LoggedEvent(f"{at}-0", event))
    assert len(scope) == 2
    assert {near.text for near in scope.neighbours(vectors[0])} == {"text 1", "text 2"}
