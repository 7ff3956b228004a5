"""GetStats and GetTradeOff: whose figures they show, and of what."""

from __future__ import annotations

from typing import Any

import pytest
from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.cache.statistics import MAX_OWNERS, TenantTotals
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import Fault
from penstock.tasks.answer_keys import tenant_of
from penstock.testkit.chats import chat, chat_result, look_up_request

ANN = Call(Principal("acme", team="core", tags=("support",)))
BOB = Call(Principal("acme", team="sales"))
EVE = Call(Principal("rival"))
ACME = Call(Principal("acme"))


async def test_figures_are_those_of_the_callers_tenant_and_the_namespace(rig: Any) -> None:
    cache = await rig.make()
    for call, namespace in ((ANN, ""), (ANN, "b"), (BOB, ""), (EVE, "")):
        await rig.add(cache, chat("hello"), chat_result("hi"), call, namespace=namespace)
        await rig.look_up(cache, chat("hello"), call, namespace=namespace)

    async def exact(call: Call, namespace: str = "") -> tuple[int, int]:
        stats = await cache.servicer.GetStats(pb.GetStatsRequest(namespace=namespace), call)
        return stats.lookups["exact"], stats.entries

    assert [await exact(call) for call in (ANN, BOB, EVE, ACME, Call())] == [
        (2, 2),
        (1, 1),
        (1, 1),
        (3, 3),
        (4, 4),
    ]
    assert await exact(ANN, "b") == (1, 2)
    stats = await cache.servicer.GetStats(pb.GetStatsRequest(), EVE)
    assert dict(stats.refused) == {"semantic_off: no judge": 1}
    assert (stats.saved_microusd, stats.bytes) == (
        400 - 1,
        cache.entries.size_of([tenant_of(EVE.principal)])[0],
    )


async def test_audits_are_those_of_the_callers_tenant_and_the_namespace(rig: Any) -> None:
    cache = await rig.make()
    for call in (ANN, EVE):
        await rig.add(cache, chat("pay now"), chat_result('{"intent": "pay"}'), call)
    await rig.until_learnt(cache, 2)
    (mine,) = (
        scope
        for scope in cache.semantic_cache.loaded_scopes
        if scope.tenant == tenant_of(ANN.principal)
    )
    for number in range(20):
        mine.policy.threshold.record_audit(0.99, number > 0)

    async def stats_of(call: Call, namespace: str = "") -> pb.GetStatsResponse:
        return await cache.servicer.GetStats(pb.GetStatsRequest(namespace=namespace), call)

    stats = await stats_of(ANN)
    assert (stats.audits, stats.audited_precision) == (20, 0.95)
    assert 0.7 < stats.audited_precision_low < 0.95
    assert (await stats_of(EVE)).audits == 0
    assert (await stats_of(ANN, "b")).audits == 0
    assert (await stats_of(Call())).audits == 20


def test_totals_of_owners_are_bounded_and_the_total_of_all_is_complete() -> None:
    totals = TenantTotals()
    for number in range(MAX_OWNERS + 5):
        totals.record_lookup(f"t{number}", "", "exact", is_hit=True)
    assert len(totals.tenants(Principal(""))) == MAX_OWNERS
    assert "t0" not in totals.tenants(Principal(""))
    assert totals.of(Principal(""), "").lookups_by_rule["exact"] == MAX_OWNERS + 5


async def test_a_trade_off_is_that_of_the_largest_matching_scope(rig: Any) -> None:
    cache = await rig.make()
    digest = b"\x01" * 32
    for number, (namespace, model) in enumerate(
        (("one", "chat@1"), ("one", "chat@2"), ("two", "chat@1"))
    ):
        for text in ("pay now", "lost card", "open when")[: number + 1]:
            await rig.add(
                cache, chat(text), chat_result('{"intent": 1}'), namespace=namespace, model=model
            )
    request = look_up_request(chat("pay now"))
    request.scope.context_sha256 = digest
    missed = await cache.servicer.LookUp(request, ANN)
    await rig.store(cache, missed, chat_result('{"intent": 1}'))
    await rig.until_learnt(cache, 7)
    for scope in cache.semantic_cache.loaded_scopes:
        scope.policy.threshold.value = 0.9 if scope.context_sha256 else len(scope) / 10

    async def threshold(call: Call = ANN, **scope: Any) -> float:
        request = pb.GetTradeOffRequest(scope=pb.Scope(**scope))
        return float((await cache.servicer.GetTradeOff(request, call)).threshold)

    assert await threshold() == 0.3
    assert await threshold(namespace="one") == 0.2
    assert await threshold(namespace="one", model="chat@1") == 0.1
    assert await threshold(model="chat@2") == 0.2
    assert await threshold(ACME, model="chat") in (0.3, 0.9)
    assert await threshold(context_sha256=digest) == 0.9
    for call, named in ((ANN, {"namespace": "three"}), (BOB, {}), (EVE, {})):
        with pytest.raises(Fault, match="no semantic scope"):
            await threshold(call, **named)
