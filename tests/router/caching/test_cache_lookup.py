"""The look-up stage with a cache behind it: what is found where, what a miss owes, a cache that is
gone.
"""

from __future__ import annotations

import pytest
from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.api.common.v1 import common_pb2
from penstock.prices.prices import ModelPrice, Prices
from penstock.router.caching.cache_lookup import EXPECTED_OUTPUT_TOKENS, CacheLookUp
from penstock.router.stages import Bypass, Miss
from penstock.rpc.call import Call, Principal
from penstock.service.current import Current
from penstock.testkit.chats import chat

from .conftest import ACME, SAVED_MICROUSD, Rig, answer, embed, receipt, request


async def test_an_answer_that_was_stored_is_served_from_here_for_a_second(rig: Rig) -> None:
    miss = await rig.miss(embed("a"))
    await rig.store(miss.ticket, answer("7"), receipt(30))
    hit = await rig.hit(embed("a"))
    assert (hit.cache.rule, hit.result.revision) == ("exact: copy", "7")
    assert [(one.technique, one.microusd) for one in hit.savings] == [("exact_cache", 30)]
    assert rig.cache.calls == ["LookUp", "Store"]
    await rig.settle(1.1)
    assert (await rig.hit(embed("a"))).cache.rule == "exact"
    assert rig.cache.calls == ["LookUp", "Store", "LookUp"]


async def test_an_answer_in_this_process_needs_no_waiting(rig: Rig) -> None:
    assert rig.stage.near_hit(ACME, embed("a")) is None
    rig.cache.keep("a", answer("7"))
    hit = await rig.hit(embed("a"))
    assert [one.microusd for one in hit.savings] == [SAVED_MICROUSD]
    near = rig.stage.near_hit(ACME, embed("a"))
    assert near is not None
    assert (near.cache.rule, near.result.revision) == ("exact: copy", "7")
    assert [one.microusd for one in near.savings] == [SAVED_MICROUSD]
    assert rig.stage.near_hit(ACME, embed("a", bypass=True)) is None
    assert rig.stage.near_hit(ACME, embed("a", namespace="n")) is None


@pytest.mark.parametrize(
    "other",
    [
        Principal("bolt"),
        Principal("acme", team="b"),
        Principal("acme", tags=("t",)),
    ],
)
async def test_an_answer_in_this_process_is_its_tenants_alone(rig: Rig, other: Principal) -> None:
    rig.cache.keep("a", answer("7"))
    await rig.hit(embed("a"))
    rig.cache.kept.clear()
    await rig.miss(embed("a"), Call(other, deadline_s=1e12))


async def test_users_of_one_team_share_answers(rig: Rig) -> None:
    rig.cache.keep("a", answer("7"))
    await rig.hit(embed("a"))
    await rig.hit(embed("a"), Call(Principal("acme", user="bob", key_id="k2"), deadline_s=1e12))
    assert rig.cache.calls == ["LookUp"]


async def test_a_caller_that_wants_a_younger_answer_asks_the_cache(rig: Rig) -> None:
    rig.cache.keep("a", answer("7"))
    await rig.hit(embed("a"))
    await rig.settle(0.5)
    assert rig.stage.near_hit(ACME, embed("a", max_age_ms=500)) is not None
    assert rig.stage.near_hit(ACME, embed("a", max_age_ms=499)) is None


async def test_the_cache_is_asked_in_the_callers_own_terms(rig: Rig) -> None:
    asked = embed("a", namespace="n", tags=["t"], max_age_ms=5, max_error_rate=0.25)
    miss = await rig.miss(asked)
    await rig.store(miss.ticket, answer("7"), receipt(30))
    look_up, store = rig.cache.requests
    assert look_up == pb.LookUpRequest(
        scope=pb.Scope(namespace="n", model="m"),
        task=asked.task,
        max_age_ms=5,
        max_error_rate=0.25,
        request_id="r1",
        asked_for=True,
        token=look_up.token,
    )
    assert len(look_up.token) == 12
    assert store == pb.StoreRequest(
        token=look_up.token, result=answer("7"), paid_microusd=30, tags=["t"]
    )


async def test_a_caller_that_names_no_terms_does_not_ask_for_reuse(rig: Rig) -> None:
    await rig.miss(embed("a"))
    [look_up] = rig.cache.requests
    assert not look_up.asked_for
    assert not look_up.HasField("max_error_rate")


@pytest.mark.parametrize(
    ("max_tokens", "output_tokens"),
    [(10, 10), (0, EXPECTED_OUTPUT_TOKENS), (10_000, EXPECTED_OUTPUT_TOKENS)],
)
async def test_the_cache_is_told_what_an_open_ended_answer_would_cost(
    rig: Rig, max_tokens: int, output_tokens: int
) -> None:
    price = ModelPrice(name="m", output_microusd_per_mtok=1_000_000)
    stage = CacheLookUp(rig.cache, Current(Prices({"m": price})), rig.clock)
    await stage.look_up(ACME, request(chat("hello", max_tokens=max_tokens)), "r1")
    await stage.look_up(ACME, embed("hello"), "r1")
    assert [one.full_price_microusd for one in rig.cache.requests] == [output_tokens, 0]
    await stage.close()


async def test_what_a_miss_cost_is_handed_on_and_is_no_part_of_what_an_entry_saves(
    rig: Rig,
) -> None:
    rig.cache.miss_cost_microusd = 4
    miss = await rig.miss(embed("a"))
    assert [saving.microusd for saving in miss.savings] == [-4]
    paid = common_pb2.Receipt(cache=miss.cache)
    paid.cost.paid_microusd = 30
    await rig.store(miss.ticket, answer("7"), paid)
    assert rig.cache.requests[-1].paid_microusd == 26
    assert [one.microusd for one in (await rig.hit(embed("a"))).savings] == [26]


async def test_an_answer_that_did_not_come_is_not_kept(rig: Rig) -> None:
    miss = await rig.miss(embed("a"))
    await rig.store(miss.ticket, None)
    assert rig.cache.calls == ["LookUp", "Store"]
    assert not rig.cache.requests[-1].HasField("result")
    await rig.miss(embed("a"))


async def test_a_caller_that_bypasses_is_not_looked_up_and_owes_nothing(rig: Rig) -> None:
    rig.cache.keep("a", answer("7"))
    found = await rig.look_up(embed("a", bypass=True))
    assert isinstance(found, Bypass)
    assert found.cache == common_pb2.CacheReceipt(
        outcome=common_pb2.CACHE_OUTCOME_BYPASSED, rule="asked to bypass"
    )
    assert rig.cache.calls == []


async def test_a_caller_that_has_nothing_stored_is_looked_up_and_not_kept(rig: Rig) -> None:
    miss = await rig.miss(embed("a", no_store=True))
    await rig.store(miss.ticket, answer("7"))
    assert rig.cache.calls == ["LookUp", "Store"]
    assert not rig.cache.kept
    await rig.miss(embed("a"))


async def test_a_cache_that_is_gone_fails_nobody(rig: Rig) -> None:
    rig.cache.is_gone = True
    miss = await rig.miss(embed("a"))
    assert miss.notes == ("cache unavailable",)
    assert miss.cache == common_pb2.CacheReceipt(
        outcome=common_pb2.CACHE_OUTCOME_BYPASSED, rule="cache unavailable"
    )
    await rig.store(miss.ticket, answer("7"))
    assert rig.cache.calls == ["LookUp"], "it waits for no answer"


async def test_a_cache_that_goes_before_the_answer_comes_fails_nobody(rig: Rig) -> None:
    miss = await rig.miss(embed("a"))
    rig.cache.is_gone = True
    await rig.store(miss.ticket, answer("7"))
    rig.cache.is_gone = False
    assert isinstance(await rig.look_up(embed("a")), Miss), "what was not stored is not copied"


async def test_a_caller_that_leaves_during_the_look_up_tells_the_cache_that_nothing_comes(
    rig: Rig,
) -> None:
    rig.cache.open.clear()
    leaving = rig.begin(embed("a"))
    await rig.settle()
    follower = rig.begin(embed("a"))
    await rig.settle()
    leaving.cancel()
    await rig.settle()
    rig.cache.open.set()
    assert isinstance(await follower, Miss), "whoever followed asks for itself"
    await rig.settle()
    store = next(one for one in rig.cache.requests if isinstance(one, pb.StoreRequest))
    assert store == pb.StoreRequest(token=rig.cache.requests[0].token)


async def test_a_complaint_clears_what_is_here_of_the_organisation_and_is_passed_on(
    rig: Rig,
) -> None:
    other = Call(Principal("bolt"), deadline_s=1e12)
    rig.cache.keep("a", answer("7"))
    await rig.hit(embed("a"))
    await rig.hit(embed("a"), other)
    assert not await rig.stage.feedback(ACME.principal, "r9", True, "fine")
    assert rig.stage.near_hit(ACME, embed("a")) is not None
    assert await rig.stage.feedback(ACME.principal, "r9", False, "wrong")
    assert rig.stage.near_hit(ACME, embed("a")) is None
    assert rig.stage.near_hit(other, embed("a")) is not None
    assert [(one.request_id, one.correct) for one in rig.cache.feedback] == [
        ("r9", True),
        ("r9", False),
    ]


async def test_a_complaint_to_a_cache_that_is_gone_quarantines_nothing(rig: Rig) -> None:
    rig.cache.is_gone = True
    assert not await rig.stage.feedback(ACME.principal, "r9", False, "wrong")


async def test_a_stale_answer_is_not_copied_and_a_new_one_is_owed_once(rig: Rig) -> None:
    rig.cache.keep("a", answer("old"))
    rig.cache.is_stale, rig.cache.refreshes = True, 1
    first = await rig.hit(embed("a"))
    assert first.cache.rule == "exact: stale, fetched anew"
    assert first.refresh is not None
    assert rig.stage.near_hit(ACME, embed("a")) is None
    assert (await rig.hit(embed("a"))).refresh is None
    await rig.store(first.refresh, answer("new"), receipt(30))
    fresh = await rig.hit(embed("a"))
    assert (fresh.cache.rule, fresh.result.revision) == ("exact: copy", "new")
    assert rig.cache.calls == ["LookUp", "LookUp", "Store"]


async def test_a_caller_that_has_nothing_stored_leaves_the_new_answer_to_the_next(
    rig: Rig,
) -> None:
    rig.cache.keep("a", answer("old"))
    rig.cache.is_stale, rig.cache.refreshes = True, 1
    assert (await rig.hit(embed("a", no_store=True))).refresh is None
    await rig.settle()
    assert rig.cache.calls == ["LookUp", "Store"]
    assert rig.cache.of("a").revision == "old"


async def test_a_semantic_answer_is_not_copied(rig: Rig) -> None:
    rig.cache.keep("a", answer("like"))
    rig.cache.semantic_confidence = 0.97
    await rig.hit(embed("a"))
    assert rig.stage.near_hit(ACME, embed("a")) is None
