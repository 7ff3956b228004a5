"""Answers that come to the cache without a look-up: gathered, in parts that fit, none after all."""

from __future__ import annotations

import asyncio

import pytest
from penstock.router.caching import known_misses as module
from penstock.router.caching.known_misses import GATHER_S
from penstock.rpc.call import Call
from penstock.rpc.dispatch import ONE_MESSAGE_BYTES
from penstock.tasks.kind import TaskResult

from .conftest import ACME, BOLT, Rig, answer, embed, receipt


async def answered(rig: Rig, text: str, result: TaskResult | None, call: Call = ACME) -> None:
    """A text that is known not to be kept was computed."""
    miss = await rig.miss(embed(text), call)
    await rig.store(miss.ticket, result, receipt(30))


async def test_answers_are_brought_together_by_tenant(rig: Rig) -> None:
    await rig.follow("known")
    for call, text in ((ACME, "a"), (ACME, "b"), (BOLT, "a")):
        await answered(rig, text, answer("7"), call)
    assert rig.cache.stored_unasked == []
    await rig.settle(2 * GATHER_S)
    assert [
        (organisation, [one.task.embed.texts[0] for one in answers])
        for organisation, answers in rig.cache.stored_unasked
    ] == [("acme", ["a", "b"]), ("bolt", ["a"])]
    first = rig.cache.stored_unasked[0][1][0]
    assert (first.result.revision, first.paid_microusd, first.scope.model) == ("7", 30, "m")
    assert rig.cache.count("LookUp") == rig.cache.count("Store") == 0


async def test_an_answer_is_served_from_here_before_it_is_brought(rig: Rig) -> None:
    await rig.follow()
    await answered(rig, "a", answer("7"))
    hit = rig.stage.near_hit(ACME, embed("a"))
    assert hit is not None
    assert [one.microusd for one in hit.savings] == [30]


async def test_nothing_is_brought_for_failures_or_for_callers_who_forbid_it(rig: Rig) -> None:
    await rig.follow()
    await answered(rig, "a", None)
    miss = await rig.miss(embed("b", no_store=True))
    await rig.store(miss.ticket, answer("7"))
    await rig.settle(1.0)
    assert rig.cache.stored_unasked == []
    assert rig.stage.near_hit(ACME, embed("b")) is None


async def test_callers_terms_travel_with_their_answer(rig: Rig) -> None:
    await rig.follow()
    miss = await rig.miss(embed("a", namespace="n", tags=["t"]))
    await rig.store(miss.ticket, answer("7"))
    await rig.settle(2 * GATHER_S)
    [(_, [brought])] = rig.cache.stored_unasked
    assert (brought.scope.namespace, list(brought.tags), brought.asked_for) == ("n", ["t"], True)


async def test_answers_that_are_more_than_one_message_are_brought_in_parts(rig: Rig) -> None:
    await rig.follow()
    large = TaskResult(revision="x" * (ONE_MESSAGE_BYTES // 3))
    for text in "abcde":
        await answered(rig, text, large)
    await rig.settle(2 * GATHER_S)
    assert [len(answers) for _, answers in rig.cache.stored_unasked] == [2, 2, 1]


async def test_many_answers_are_brought_in_batches(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BATCH", 2)
    await rig.follow()
    for text in "abcde":
        await answered(rig, text, answer("7"))
    await rig.settle(2 * GATHER_S)
    assert [len(answers) for _, answers in rig.cache.stored_unasked] == [2, 2, 1]


async def test_where_too_many_wait_the_newest_are_dropped(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 2)
    await rig.follow()
    for text in "abc":
        await answered(rig, text, answer("7"))
    await rig.settle(2 * GATHER_S)
    await answered(rig, "d", answer("7"))
    await rig.settle(2 * GATHER_S)
    assert [
        [one.task.embed.texts[0] for one in answers] for _, answers in rig.cache.stored_unasked
    ] == [["a", "b"], ["d"]]


async def test_a_cache_that_is_gone_loses_the_answers_and_gets_the_next_ones(rig: Rig) -> None:
    await rig.follow()
    await answered(rig, "a", answer("7"))
    rig.cache.is_gone = True
    await rig.settle(2 * GATHER_S)
    assert rig.cache.count("StoreAll") == 1
    rig.cache.is_gone = False
    await rig.settle(2.0)
    await answered(rig, "b", answer("8"))
    await rig.settle(2 * GATHER_S)
    [(_, [brought])] = rig.cache.stored_unasked
    assert brought.result.revision == "8"


async def test_closing_brings_what_waits(rig: Rig) -> None:
    await rig.follow()
    await answered(rig, "a", answer("7"))
    closing = asyncio.create_task(rig.stage.close())
    await rig.settle(2 * GATHER_S)
    await closing
    assert len(rig.cache.stored_unasked) == 1
