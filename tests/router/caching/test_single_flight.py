"""Identical requests in flight: asked once, shared, and gone on with when the first one fails."""

from __future__ import annotations

import asyncio

import pytest
from penstock.api.inference.v1 import inference_pb2
from penstock.router.caching.near_cache import SingleFlight
from penstock.router.stages import Hit, LookUp, Miss

from .conftest import ACME, BOLT, SAVED_MICROUSD, Rig, answer, embed, receipt


def chunk(delta: str) -> inference_pb2.GenerateChunk:
    return inference_pb2.GenerateChunk(delta=delta)


async def followers(rig: Rig, count: int) -> list[asyncio.Task[LookUp]]:
    """So many callers who wait for the request that is in flight."""
    tasks = [rig.begin(embed("a")) for _ in range(count)]
    await rig.settle()
    return tasks


async def test_the_same_request_in_flight_is_asked_once_and_saves_what_it_cost(rig: Rig) -> None:
    leader = await rig.miss(embed("a"))
    waiting = await followers(rig, 9)
    await rig.store(leader.ticket, answer("7"), receipt(30))
    for found in await asyncio.gather(*waiting):
        assert isinstance(found, Hit)
        assert (found.cache.rule, found.result.revision) == ("coalesced", "7")
        assert [(one.technique, one.microusd) for one in found.savings] == [("coalesced", 30)]
    assert rig.cache.count("LookUp") == 1


async def test_a_hit_is_shared_with_those_who_waited_for_it(rig: Rig) -> None:
    rig.cache.keep("a", answer("7"))
    rig.cache.open.clear()
    first, second = rig.begin(embed("a")), rig.begin(embed("a"))
    await rig.settle()
    rig.cache.open.set()
    rules = []
    for found in (await first, await second):
        assert isinstance(found, Hit)
        assert found.savings[0].microusd == SAVED_MICROUSD
        rules.append(found.cache.rule)
    assert rules == ["exact", "coalesced"]
    assert rig.cache.calls == ["LookUp"]


async def test_other_tenants_and_other_requests_are_not_followed(rig: Rig) -> None:
    await rig.miss(embed("a"))
    await rig.miss(embed("b"))
    await rig.miss(embed("a"), BOLT)
    await rig.miss(embed("a", namespace="n"))
    assert rig.cache.count("LookUp") == 4


async def test_a_failure_is_shared_with_nobody_and_one_of_the_others_goes_on(rig: Rig) -> None:
    leader = await rig.miss(embed("a"))
    waiting = await followers(rig, 3)
    await rig.store(leader.ticket, None)
    await rig.settle()
    [second] = [task for task in waiting if task.done()]
    found = second.result()
    assert isinstance(found, Miss)
    await rig.store(found.ticket, answer("8"))
    others = [await task for task in waiting if task is not second]
    assert [found.result.revision for found in others if isinstance(found, Hit)] == ["8", "8"]
    assert rig.cache.count("LookUp") == 2


async def test_a_follower_waits_no_longer_than_its_own_deadline(rig: Rig) -> None:
    await rig.miss(embed("a"))
    hurried = ACME._replace(deadline_s=rig.clock.monotonic() + 0.01)
    with pytest.raises(TimeoutError):
        await rig.look_up(embed("a"), hurried)


async def test_a_stale_answer_says_so_to_followers_who_owe_nothing_for_it(rig: Rig) -> None:
    rig.cache.keep("a", answer("old"))
    rig.cache.is_stale, rig.cache.refreshes = True, 1
    rig.cache.open.clear()
    first, second = rig.begin(embed("a")), rig.begin(embed("a"))
    await rig.settle()
    rig.cache.open.set()
    leader, follower = await first, await second
    assert isinstance(leader, Hit)
    assert isinstance(follower, Hit)
    assert (follower.cache.rule, follower.result.revision) == ("coalesced: stale", "old")
    assert leader.refresh is not None
    assert follower.refresh is None


async def test_a_semantic_answer_is_followed_only_by_callers_without_an_error_bound(
    rig: Rig,
) -> None:
    rig.cache.keep("a", answer("like"))
    rig.cache.semantic_confidence = 0.97
    rig.cache.open.clear()
    begun = [rig.begin(embed("a")), rig.begin(embed("a"))]
    begun.append(rig.begin(embed("a", max_error_rate=0.001)))
    await rig.settle()
    rig.cache.open.set()
    leader, follower, careful = await asyncio.gather(*begun)
    assert isinstance(leader, Hit)
    assert isinstance(follower, Hit)
    assert isinstance(careful, Hit)
    assert leader.cache.rule == "semantic"
    assert (follower.cache.rule, follower.cache.confidence) == ("coalesced: semantic", 0.97)
    assert careful.cache.rule == "semantic", "it asked the cache with its own bound"
    assert rig.cache.calls == ["LookUp", "LookUp"]


async def test_followers_of_a_stream_get_its_pieces_from_the_beginning_as_they_come(
    rig: Rig,
) -> None:
    leader = await rig.miss(embed("a"))
    rig.stage.publish(leader.ticket, chunk("one "))
    heard: list[str] = []
    hits: list[Hit] = []

    async def follow() -> None:
        async for piece in rig.stage.follow_stream(ACME, embed("a")):
            if isinstance(piece, Hit):
                hits.append(piece)
            else:
                heard.append(piece.delta)

    follower = asyncio.create_task(follow())
    await rig.settle()
    rig.stage.publish(leader.ticket, chunk("two"))
    await rig.settle()
    assert heard == ["one ", "two"]
    assert not follower.done()
    await rig.store(leader.ticket, answer("7"))
    await follower
    assert heard == ["one ", "two"]
    assert [(hit.cache.rule, hit.result.revision) for hit in hits] == [("coalesced", "7")]


async def test_where_nothing_is_in_flight_there_is_no_stream_to_follow(rig: Rig) -> None:
    leader = await rig.miss(embed("a"))
    for asked in (embed("b"), embed("a", bypass=True)):
        assert [piece async for piece in rig.stage.follow_stream(ACME, asked)] == []
    await rig.store(leader.ticket, answer("7"))
    assert [piece async for piece in rig.stage.follow_stream(ACME, embed("a"))] == []


async def test_followers_that_come_at_any_moment_hear_the_whole() -> None:
    flight = SingleFlight()

    async def heard() -> str:
        return "".join([piece.delta async for piece in flight.chunks()])

    early = asyncio.create_task(heard())
    await asyncio.sleep(0)
    for delta in ("one ", "two ", "three"):
        flight.publish(chunk(delta))
    late = asyncio.create_task(heard())
    flight.end(answer("7"), 0)
    after = asyncio.create_task(heard())
    assert await asyncio.gather(early, late, after) == ["one two three"] * 3


async def test_who_has_nothing_stored_leads_nobody_and_may_follow(rig: Rig) -> None:
    alone = await rig.miss(embed("a", no_store=True))
    assert alone.following is None
    leader = await rig.miss(embed("a"))
    follower = rig.begin(embed("a", no_store=True))
    await rig.settle()
    await rig.store(leader.ticket, answer("7"))
    assert isinstance(await follower, Hit)


async def test_a_fallbacks_answer_is_shared_by_its_name_and_not_kept(rig: Rig) -> None:
    leader = await rig.miss(embed("a"))
    [follower] = await followers(rig, 1)
    made = receipt(30)
    made.model = "another"
    await rig.store(leader.ticket, answer("7"), made)
    found = await follower
    assert isinstance(found, Hit)
    assert found.model == "another"
    await rig.miss(embed("a"))
