"""Corrections: feedback on a hit, and invalidation by id, tag, model, scope and context."""

from __future__ import annotations

from typing import Any

import pytest
from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.api.common.v1 import common_pb2
from penstock.cache.build import Cache
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import Fault
from penstock.testkit.chats import chat, chat_result, look_up_request
from penstock.testkit.eventually import eventually

ANN = Call(Principal("acme", team="core", tags=("support",)))
EVE = Call(Principal("rival"))
MISS = common_pb2.CACHE_OUTCOME_MISS


async def quarantined(cache: Cache, call: Call = ANN, **more: Any) -> bool:
    """Whether feedback on request r1 removed an entry."""
    request = pb.SendFeedbackRequest(request_id="r1", **more)
    return bool((await cache.servicer.SendFeedback(request, call)).quarantined)


async def removed(cache: Cache, call: Call = ANN, **more: Any) -> int:
    """How many entries an invalidation removed."""
    return int((await cache.servicer.Invalidate(pb.InvalidateRequest(**more), call)).removed)


async def test_an_answer_reported_as_wrong_is_removed_by_its_own_tenant_only(rig: Any) -> None:
    cache = await rig.make()
    await rig.add(cache, chat("hello"), chat_result("wrong"))
    await rig.look_up(cache, chat("hello"), request_id="r1")
    assert not await quarantined(cache, EVE)
    assert not await quarantined(cache, correct=True)
    assert await quarantined(cache)
    assert (await rig.look_up(cache, chat("hello"))).receipt.outcome == MISS


async def test_feedback_without_a_request_id_is_refused(rig: Any) -> None:
    cache = await rig.make()
    with pytest.raises(Fault) as refused:
        await cache.servicer.SendFeedback(pb.SendFeedbackRequest(), ANN)
    assert refused.value.field == "request_id"


async def test_entries_are_removed_by_tag_and_by_model(rig: Any) -> None:
    cache = await rig.make()
    for number in range(4):
        missed = await rig.look_up(cache, chat(f"q{number}"), model=f"chat@{number % 2}")
        await rig.store(cache, missed, chat_result("x"), tags=["a" if number < 3 else "b"])
    assert await removed(cache, tags=["b"]) == 1
    assert await removed(cache, tags=["a"], model="chat") == 3


async def test_entries_are_removed_by_scope_and_by_revision_where_one_is_named(rig: Any) -> None:
    cache = await rig.make()
    for namespace, model in (
        ("one", "chat@1"),
        ("one", "chat@2"),
        ("two", "chat@1"),
        ("", "chat@1"),
    ):
        await rig.add(cache, chat("q"), chat_result("x"), namespace=namespace, model=model)
    assert await removed(cache, EVE, scope=pb.Scope(namespace="one")) == 0
    assert await removed(cache, scope=pb.Scope(namespace="one", model="chat@2")) == 1
    assert await removed(cache, scope=pb.Scope(namespace="one")) == 1
    assert await removed(cache, scope=pb.Scope(model="chat@3")) == 0
    assert await removed(cache, scope=pb.Scope(model="chat")) == 2


async def test_entries_are_removed_by_context_digest(rig: Any) -> None:
    cache = await rig.make()
    for number in (1, 2):
        request = look_up_request(chat("hello"))
        request.scope.context_sha256 = bytes([number]) * 32
        missed = await cache.servicer.LookUp(request, ANN)
        await rig.store(cache, missed, chat_result("x"))
    scope = pb.Scope(context_sha256=b"\x01" * 32)
    assert await removed(cache, EVE, scope=scope) == 0
    assert await removed(cache, scope=scope) == 1
    assert len(cache.entries) == 1


async def test_entries_are_removed_by_the_ids_in_receipts_and_no_replica_serves_them(
    rig: Any,
) -> None:
    cache, other = await rig.make(), await rig.make()
    missed = await rig.look_up(cache, chat("pay now"))
    await rig.store(cache, missed, chat_result('{"intent": "pay"}'))
    await rig.add(cache, chat("pay now", "You are brief."), chat_result('{"intent": "pay"}'))
    hit = await rig.look_up(cache, chat("pay now"))
    for replica in (cache, other):
        await rig.until_learnt(replica, 2)
    entry_ids, scope_id = [hit.receipt.entry_id], missed.receipt.scope_id
    assert await removed(cache, EVE, entry_ids=entry_ids) == 0
    assert await removed(cache, EVE, scope_id=scope_id) == 0
    assert await removed(cache, scope_id=scope_id, entry_ids=entry_ids) == 1
    assert (await rig.look_up(other, chat("pay now"))).receipt.outcome == MISS

    def scope_sizes(replica: Cache) -> list[int]:
        assert replica.semantic_cache is not None
        return sorted(len(scope) for scope in replica.semantic_cache.loaded_scopes)

    for replica in (cache, other):
        await eventually(lambda replica=replica: scope_sizes(replica) == [0, 1])


async def test_an_invalidation_without_a_principal_or_that_names_nothing_is_refused(
    rig: Any,
) -> None:
    cache = await rig.make()
    with pytest.raises(Fault) as refused:
        await removed(cache, Call(), model="chat")
    assert refused.value.field == "context.principal.organisation"
    with pytest.raises(Fault, match="at least one"):
        await removed(cache)
    with pytest.raises(Fault, match="has 1 bytes") as refused:
        await removed(cache, scope=pb.Scope(context_sha256=b"x"))
    assert refused.value.field == "scope.context_sha256"
