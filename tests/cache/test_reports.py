"""Figures, trade-off and invalidation: of whom they are, and what they name."""

from __future__ import annotations

from typing import Any

import pytest
from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.api.common.v1 import common_pb2
from penstock.cache.storage.tally import MOST_OWNERS, Tally, belongs
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import Fault
from penstock.tasks.answer_keys import tenant_of
from penstock.testkit.chats import chat, chat_result, look_up_request

ANN = Call(Principal("acme", team="core", tags=("support",)))
BOB = Call(Principal("acme", team="sales"))
EVE = Call(Principal("rival"))
ACME = Call(Principal("acme"))
MISS = common_pb2.CACHE_OUTCOME_MISS


def test_an_organisation_means_all_its_tenants_and_a_team_itself_alone() -> None:
    ann = tenant_of(ANN.principal)
    assert [belongs(ann, call.principal) for call in (ANN, BOB, EVE, ACME, Call())] == [
        True,
        False,
        False,
        True,
        True,
    ]
    assert not belongs(tenant_of(Principal("acme2")), ACME.principal)


async def test_figures_are_of_the_asked_tenant_and_namespace(rig: Any) -> None:
    cache = await rig.make()
    for call, namespace in ((ANN, ""), (ANN, "b"), (BOB, ""), (EVE, "")):
        await rig.keep(cache, chat("hello"), chat_result("hi"), call, namespace=namespace)
        await rig.look(cache, chat("hello"), call, namespace=namespace)

    async def exact(call: Call, namespace: str = "") -> tuple[int, int]:
        stats = await cache.GetStats(pb.GetStatsRequest(namespace=namespace), call)
        return stats.lookups["exact"], stats.entries

    assert [await exact(call) for call in (ANN, BOB, EVE, ACME, Call())] == [
        (2, 2),
        (1, 1),
        (1, 1),
        (3, 3),
        (4, 4),
    ]
    assert await exact(ANN, "b") == (1, 2)
    stats = await cache.GetStats(pb.GetStatsRequest(), EVE)
    assert dict(stats.refused) == {"semantic_off: no judge": 1}
    assert (stats.saved_microusd, stats.bytes) == (
        400 - 1,
        cache._entries.held_by([tenant_of(EVE.principal)])[0],
    )


async def test_audits_are_of_the_asked_tenant(rig: Any) -> None:
    cache = await rig.make()
    for call in (ANN, EVE):
        await rig.keep(cache, chat("pay now"), chat_result('{"intent": "pay"}'), call)
    await rig.until(lambda: len(rig.tiers[0].scopes()) == 2)
    mine = next(held for held in rig.tiers[0].scopes() if held.tenant == tenant_of(ANN.principal))
    for number in range(20):
        mine.learnt.threshold.audited(0.99, number > 0)
    stats = await cache.GetStats(pb.GetStatsRequest(), ANN)
    assert (stats.audits, stats.audited_precision) == (20, 0.95)
    assert 0.7 < stats.audited_precision_low < 0.95
    assert (await cache.GetStats(pb.GetStatsRequest(), EVE)).audits == 0
    assert (await cache.GetStats(pb.GetStatsRequest(namespace="b"), ANN)).audits == 0
    assert (await cache.GetStats(pb.GetStatsRequest(), Call())).audits == 20


def test_owners_that_are_remembered_are_bounded_and_the_sum_of_all_forgets_nothing() -> None:
    tally = Tally()
    for number in range(MOST_OWNERS + 5):
        tally.count(f"t{number}", "", "exact")
    assert len(tally._owners) == MOST_OWNERS
    assert tally.of(Principal(""), "").rules["exact"] == MOST_OWNERS + 5


async def test_a_trade_off_is_of_the_asked_scope(rig: Any) -> None:
    cache = await rig.make()
    digest = b"\x01" * 32
    for number, (namespace, model) in enumerate(
        (("one", "chat@1"), ("one", "chat@2"), ("two", "chat@1"))
    ):
        for text in ("pay now", "lost card", "open when")[: number + 1]:
            await rig.keep(
                cache, chat(text), chat_result('{"intent": 1}'), namespace=namespace, model=model
            )
    asked = look_up_request(chat("pay now"))
    asked.scope.context_sha256 = digest
    missed = await cache.LookUp(asked, ANN)
    await rig.store(cache, missed, chat_result('{"intent": 1}'))
    await rig.until(lambda: sum(len(held.index) for held in rig.tiers[0].scopes()) == 7)
    for held in rig.tiers[0].scopes():
        held.learnt.threshold.theta = len(held.index) / 10 if not held.context else 0.9

    async def threshold(call: Call = ANN, **scope: Any) -> float:
        return (
            await cache.GetTradeOff(pb.GetTradeOffRequest(scope=pb.Scope(**scope)), call)
        ).threshold

    assert await threshold() == 0.3
    assert await threshold(namespace="one") == 0.2
    assert await threshold(namespace="one", model="chat@1") == 0.1
    assert await threshold(model="chat@2") == 0.2
    assert await threshold(ACME, model="chat") in (0.3, 0.9)
    assert await threshold(context_sha256=digest) == 0.9
    for call, scope in ((ANN, {"namespace": "three"}), (BOB, {}), (EVE, {})):
        with pytest.raises(Fault, match="no semantic scope"):
            await threshold(call, **scope)


async def test_entries_leave_by_the_digest_of_their_surroundings(rig: Any) -> None:
    cache = await rig.make()
    for number in (1, 2):
        asked = look_up_request(chat("hello"))
        asked.scope.context_sha256 = bytes([number]) * 32
        missed = await cache.LookUp(asked, ANN)
        await rig.store(cache, missed, chat_result("x"))
    scope = pb.Scope(context_sha256=b"\x01" * 32)
    assert (await cache.Invalidate(pb.InvalidateRequest(scope=scope), EVE)).removed == 0
    assert (await cache.Invalidate(pb.InvalidateRequest(scope=scope), ANN)).removed == 1
    assert len(cache._entries) == 1


async def test_entries_leave_by_the_ids_that_receipts_tell_and_no_replica_serves_them(
    rig: Any,
) -> None:
    cache, other = await rig.make(), await rig.make()
    missed = await rig.look(cache, chat("pay now"))
    await rig.store(cache, missed, chat_result('{"intent": "pay"}'))
    await rig.keep(cache, chat("pay now", "You are brief."), chat_result('{"intent": "pay"}'))
    hit = await rig.look(cache, chat("pay now"))
    await rig.until(lambda: all(len(tier.scopes()) == 2 for tier in rig.tiers))
    for named in ({"entry_ids": [hit.receipt.entry_id]}, {"scope_id": missed.receipt.scope_id}):
        assert (await cache.Invalidate(pb.InvalidateRequest(**named), EVE)).removed == 0
    request = pb.InvalidateRequest(
        scope_id=missed.receipt.scope_id, entry_ids=[hit.receipt.entry_id]
    )
    assert (await cache.Invalidate(request, ANN)).removed == 1
    assert (await rig.look(other, chat("pay now"))).receipt.outcome == MISS
    for tier in rig.tiers:
        await rig.until(
            lambda tier=tier: sorted(len(held.index) for held in tier.scopes()) == [0, 1]
        )


async def test_what_names_nobody_or_nothing_is_refused(rig: Any) -> None:
    cache = await rig.make()
    with pytest.raises(Fault) as refused:
        await cache.Invalidate(pb.InvalidateRequest(model="chat"), Call())
    assert refused.value.field == "context.principal.organisation"
    missed = await rig.look(cache, chat("x"))
    for field, request in (
        ("paid_microusd", pb.StoreRequest(token=missed.token, paid_microusd=-1)),
        ("ttl_ms", pb.StoreRequest(token=missed.token, ttl_ms=-1)),
        ("tags[1]", pb.StoreRequest(token=missed.token, tags=["a", "\x1fnamespace:b"])),
    ):
        with pytest.raises(Fault) as refused:
            await cache.Store(request, ANN)
        assert refused.value.field == field
    assert (
        await cache.Store(pb.StoreRequest(token=missed.token, result=chat_result("x")), ANN)
    ).stored, "it is still owed"


async def test_groups_hold_no_key_longer_than_its_entry_lives(rig: Any) -> None:
    """What evicted entries were tagged with leaves with them, and a short-lived entry does not
    shorten its group's life.
    """
    cache = await rig.make(tenant_bytes=1 << 16)

    async def kept(text: str, ttl_ms: int, body: str = "x") -> None:
        missed = await rig.look(cache, chat(text))
        await rig.store(cache, missed, chat_result(body), tags=["t"], ttl_ms=ttl_ms)

    await kept("long", 900_000_000)
    await kept("short", 60_000)
    (group,) = [name async for name in rig.client.scan_iter(match="penstock:cache:*:g:t:t")]
    assert await rig.client.pttl(group) > 700_000_000
    for number in range(60):
        await kept(f"q{number}", 60_000, "y".join(str(n * number) for n in range(2_000)))
    assert await rig.client.zcard(group) == len(cache._entries) < 60
    left = len(cache._entries)
    assert (await cache.Invalidate(pb.InvalidateRequest(tags=["t"]), ANN)).removed == left
    assert not await rig.client.exists(group)


async def test_a_store_that_is_away_is_a_miss_for_look_ups_and_unavailable_for_the_rest(
    rig: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = await rig.make()
    missed = await rig.look(cache, chat("x"))

    async def away(*_: Any, **__: Any) -> Any:
        raise ConnectionError("secret host")

    for name in ("get", "put", "remove", "members"):
        monkeypatch.setattr(cache._entries, name, away)
    assert (await rig.look(cache, chat("y"))).receipt.outcome == MISS
    for call in (
        cache.Store(pb.StoreRequest(token=missed.token, result=chat_result("x")), ANN),
        cache.Invalidate(pb.InvalidateRequest(model="chat"), ANN),
        cache.StoreAll(
            pb.StoreAllRequest(
                answers=[
                    pb.Answer(scope=pb.Scope(model="m"), task=chat("x"), result=chat_result("x"))
                ]
            ),
            ANN,
        ),
    ):
        with pytest.raises(Fault, match="does not answer") as refused:
            await call
        assert "secret" not in str(refused.value)
