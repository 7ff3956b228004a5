"""The router's recall with a cache behind it: the copy, followers of a request in flight, and a
cache that is gone.
"""

from __future__ import annotations

import asyncio
from typing import Any

from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.prices.prices import Prices
from penstock.router.caching.cache_lookup import CacheRecall
from penstock.router.stages import Found, NotFound, finish
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import unavailable
from penstock.tasks.answer_keys import STALE
from penstock.testkit.clock import FakeClock

OPTIONS = router_pb2.CallOptions()
ANN = Call(Principal("acme"), deadline_s=1e12)


class Shelf:
    """A cache service of the same contract that keeps everything for ever, and can be gone."""

    def __init__(self) -> None:
        self.kept: dict[bytes, inference_pb2.TaskResult] = {}
        self.owed: dict[bytes, bytes] = {}
        self.calls: list[str] = []
        self.gone = False
        self.stale = self.cost = 0
        """Times that an answer is owed for a stale one, and what a miss costs."""
        self.stale_once = False
        self.alike = 0.0
        """How sure the cache is that a like answer is right."""
        self.open = asyncio.Event()
        self.open.set()
        self.paid: list[int] = []

    async def call(self, method: str, request: Any, call: Call) -> Any:
        self.calls.append(method)
        await self.open.wait()
        if self.gone:
            raise unavailable("gone")
        if method == "LookUp":
            key = request.task.SerializeToString(deterministic=True)
            receipt = common_pb2.CacheReceipt(outcome=common_pb2.CACHE_OUTCOME_MISS, rule="miss")
            if key in self.kept:
                return self._hit(request, key)
            self.owed[request.token] = key
            receipt.cost_microusd = self.cost
            costs = (
                [common_pb2.Saving(technique="semantic_cache", microusd=-self.cost)]
                if self.cost
                else []
            )
            return pb.LookUpResponse(receipt=receipt, token=request.token, savings=costs)
        self.paid.append(request.paid_microusd)
        if request.HasField("result"):
            self.kept[self.owed[request.token]] = request.result
        return pb.StoreResponse(stored=request.HasField("result"))

    def _hit(self, request: pb.LookUpRequest, key: bytes) -> pb.LookUpResponse:
        rule = "exact"
        if self.stale_once:
            rule = STALE
        receipt = common_pb2.CacheReceipt(outcome=common_pb2.CACHE_OUTCOME_EXACT_HIT, rule=rule)
        if self.alike:
            outcome = common_pb2.CACHE_OUTCOME_SEMANTIC_HIT
            receipt = common_pb2.CacheReceipt(
                outcome=outcome, rule="semantic", confidence=self.alike
            )
        found = pb.LookUpResponse(
            result=self.kept[key], receipt=receipt, savings=[common_pb2.Saving(microusd=9)]
        )
        if self.stale:
            self.stale, found.token, found.receipt.rule = (
                self.stale - 1,
                request.token,
                f"{STALE}, fetched anew",
            )
            self.owed[request.token], self.stale_once = key, True
        return found

    def stream(self, method: str, request: Any, call: Call) -> Any:
        raise NotImplementedError

    async def close(self) -> None:
        return None


def task(text: str) -> inference_pb2.Task:
    return inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=[text]))


def made() -> tuple[CacheRecall, Shelf, FakeClock]:
    shelf, clock = Shelf(), FakeClock(1_000.0)
    return CacheRecall(shelf, lambda: Prices({}), clock), shelf, clock


async def test_a_hit_is_copied_for_a_second_and_asked_for_again_after_it() -> None:
    recall, shelf, clock = made()
    missed = await recall.look_up(ANN, OPTIONS, task("a"), "m", "r1")
    assert isinstance(missed, NotFound)
    await finish(
        recall.store(missed.token, inference_pb2.TaskResult(revision="7"), common_pb2.Receipt())
    )
    hit = await recall.look_up(ANN, OPTIONS, task("a"), "m", "r2")
    assert isinstance(hit, Found)
    assert (hit.cache.rule, hit.result.revision) == ("exact: copy", "7")
    assert shelf.calls == ["LookUp", "Store"]
    await clock.advance(1.1)
    hit = await recall.look_up(ANN, OPTIONS, task("a"), "m", "r3")
    assert isinstance(hit, Found)
    assert hit.cache.rule == "exact"
    other = Call(Principal("acme", team="b"), deadline_s=1e12)
    shelf.kept.clear()
    assert isinstance(await recall.look_up(other, OPTIONS, task("a"), "m", "r4"), NotFound)


async def test_the_same_request_in_flight_is_asked_once() -> None:
    recall, shelf, _ = made()
    leader = await recall.look_up(ANN, OPTIONS, task("a"), "m", "")
    followers = [
        asyncio.create_task(recall.look_up(ANN, OPTIONS, task("a"), "m", "")) for _ in range(9)
    ]
    await asyncio.sleep(0)
    assert isinstance(leader, NotFound)
    receipt = common_pb2.Receipt()
    receipt.cost.paid_microusd = 30
    await finish(recall.store(leader.token, inference_pb2.TaskResult(revision="7"), receipt))
    for found in await asyncio.gather(*followers):
        assert isinstance(found, Found)
        assert (found.cache.rule, found.savings[0].microusd, found.result.revision) == (
            "coalesced",
            30,
            "7",
        )
    assert shelf.calls.count("LookUp") == 1


async def test_a_failure_is_shared_with_nobody_and_one_of_the_others_goes_on() -> None:
    recall, shelf, _ = made()
    leader = await recall.look_up(ANN, OPTIONS, task("a"), "m", "")
    followers = [
        asyncio.create_task(recall.look_up(ANN, OPTIONS, task("a"), "m", "")) for _ in range(3)
    ]
    await asyncio.sleep(0)
    assert isinstance(leader, NotFound)
    await finish(recall.store(leader.token, None, None))
    for _ in range(5):
        await asyncio.sleep(0)
    done = [follower for follower in followers if follower.done()]
    assert len(done) == 1
    second = done[0].result()
    assert isinstance(second, NotFound)
    await finish(recall.store(second.token, inference_pb2.TaskResult(revision="8"), None))
    results = [await follower for follower in followers if follower is not done[0]]
    assert all(isinstance(found, Found) for found in results)
    assert shelf.calls.count("LookUp") == 2


async def test_followers_of_a_stream_get_its_pieces_as_they_come() -> None:
    recall, _, _ = made()
    leader = await recall.look_up(ANN, OPTIONS, task("a"), "m", "")
    assert isinstance(leader, NotFound)
    recall.said(leader.token, inference_pb2.GenerateChunk(delta="one "))
    heard: list[str] = []

    async def follow() -> None:
        async for chunk in recall.follow_stream(ANN, OPTIONS, task("a"), "m"):
            heard.append(chunk.delta)  # noqa: PERF401

    follower = asyncio.create_task(follow())
    await asyncio.sleep(0)
    recall.said(leader.token, inference_pb2.GenerateChunk(delta="two"))
    await asyncio.sleep(0)
    assert heard == ["one ", "two"]
    await finish(recall.store(leader.token, inference_pb2.TaskResult(), None))
    await follower
    assert heard == ["one ", "two"]


async def test_a_cache_that_is_gone_fails_nobody() -> None:
    recall, shelf, _ = made()
    shelf.gone = True
    missed = await recall.look_up(ANN, OPTIONS, task("a"), "m", "")
    assert isinstance(missed, NotFound)
    assert missed.notes == ("cache unavailable",)
    await finish(recall.store(missed.token, inference_pb2.TaskResult(), None))
    assert shelf.calls == ["LookUp"]


async def test_who_asks_to_bypass_is_neither_looked_up_nor_kept() -> None:
    recall, shelf, _ = made()
    options = router_pb2.CallOptions(cache=router_pb2.CachePolicy(bypass=True))
    missed = await recall.look_up(ANN, options, task("a"), "m", "")
    assert isinstance(missed, NotFound)
    await finish(recall.store(missed.token, inference_pb2.TaskResult(), None))
    keeps = router_pb2.CallOptions(cache=router_pb2.CachePolicy(no_store=True))
    missed = await recall.look_up(ANN, keeps, task("a"), "m", "")
    assert isinstance(missed, NotFound)
    await finish(recall.store(missed.token, inference_pb2.TaskResult(), None))
    assert shelf.calls == ["LookUp", "Store"]
    assert not shelf.kept


async def test_a_caller_who_leaves_during_the_look_up_tells_the_cache_that_nothing_comes() -> None:
    recall, shelf, _ = made()
    real, gate = shelf.call, asyncio.Event()

    async def slow(method: str, request: Any, call: Call) -> Any:
        if method == "LookUp":
            await gate.wait()
        return await real(method, request, call)

    shelf.call = slow  # type: ignore[method-assign]
    asked = asyncio.create_task(recall.look_up(ANN, OPTIONS, task("a"), "m", ""))
    await asyncio.sleep(0)
    asked.cancel()
    await asyncio.wait([asked])
    gate.set()
    await recall.close()
    assert shelf.calls == ["Store"]


async def test_a_stale_answer_is_not_copied_says_so_to_followers_and_is_fetched_anew_once() -> None:
    recall, shelf, _ = made()
    shelf.kept[task("a").SerializeToString(deterministic=True)] = inference_pb2.TaskResult(
        revision="old"
    )
    shelf.stale = 1
    shelf.open.clear()
    leader = asyncio.create_task(recall.look_up(ANN, OPTIONS, task("a"), "m", "r1"))
    await asyncio.sleep(0)
    follower = asyncio.create_task(recall.look_up(ANN, OPTIONS, task("a"), "m", "r2"))
    await asyncio.sleep(0)
    shelf.open.set()
    found, followed = await leader, await follower
    assert isinstance(found, Found)
    assert isinstance(followed, Found)
    assert (found.cache.rule, followed.cache.rule) == (
        "exact: stale, fetched anew",
        "coalesced: stale",
    )
    assert found.refresh is not None
    assert followed.refresh is None
    again = await recall.look_up(ANN, OPTIONS, task("a"), "m", "r3")
    assert isinstance(again, Found)
    assert again.refresh is None
    await finish(
        recall.store(
            found.refresh.token, inference_pb2.TaskResult(revision="new"), common_pb2.Receipt()
        )
    )
    fresh = await recall.look_up(ANN, OPTIONS, task("a"), "m", "r4")
    assert isinstance(fresh, Found)
    assert (fresh.cache.rule, fresh.result.revision) == ("exact: copy", "new")
    assert shelf.calls == ["LookUp", "LookUp", "Store"]


async def test_who_has_nothing_stored_leaves_the_new_answer_to_the_next_caller() -> None:
    recall, shelf, _ = made()
    shelf.kept[task("a").SerializeToString(deterministic=True)] = inference_pb2.TaskResult(
        revision="old"
    )
    shelf.stale = 1
    options = router_pb2.CallOptions(cache=router_pb2.CachePolicy(no_store=True))
    found = await recall.look_up(ANN, options, task("a"), "m", "r1")
    assert isinstance(found, Found)
    assert found.refresh is None
    await recall.close()
    assert shelf.calls == ["LookUp", "Store"]
    assert shelf.kept[task("a").SerializeToString(deterministic=True)].revision == "old"


async def test_what_a_miss_cost_is_handed_on_and_is_no_part_of_what_an_entry_saves() -> None:
    recall, shelf, _ = made()
    shelf.cost = 4
    missed = await recall.look_up(ANN, OPTIONS, task("a"), "m", "r1")
    assert isinstance(missed, NotFound)
    assert [saving.microusd for saving in missed.savings] == [-4]
    receipt = common_pb2.Receipt(cache=missed.cache)
    receipt.cost.paid_microusd = 30
    await finish(recall.store(missed.token, inference_pb2.TaskResult(), receipt))
    assert shelf.paid == [26]


async def test_a_semantic_answer_is_followed_only_by_callers_without_an_error_bound() -> None:
    recall, shelf, _ = made()
    shelf.kept[task("a").SerializeToString(deterministic=True)] = inference_pb2.TaskResult(
        revision="like"
    )
    shelf.alike = 0.97
    shelf.open.clear()
    careful = router_pb2.CallOptions(cache=router_pb2.CachePolicy(max_error_rate=0.001))
    asked = [
        asyncio.create_task(recall.look_up(ANN, options, task("a"), "m", ""))
        for options in (OPTIONS, OPTIONS, careful)
    ]
    await asyncio.sleep(0)
    shelf.open.set()
    leader, follower, own = await asyncio.gather(*asked)
    assert isinstance(leader, Found)
    assert isinstance(follower, Found)
    assert (leader.cache.rule, follower.cache.rule, follower.cache.confidence) == (
        "semantic",
        "coalesced: semantic",
        0.97,
    )
    assert isinstance(own, Found)
    assert own.cache.rule == "semantic", "it asked the cache with its own bound"
    assert shelf.calls == ["LookUp", "LookUp"]
