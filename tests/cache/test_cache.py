"""The cache on a real Redis: what is found and what is not, coalescing, bounds, invalidation,
complaints, and prompts that teach.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import grpc
import numpy as np
import pytest
from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.cache.api.cache_service import CacheServicer
from penstock.cache.semantic.learning_log import LESSONS
from penstock.cache.semantic.scope import answer_class, never_kept
from penstock.cache.storage.eviction import Bounded
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import Fault
from penstock.tasks.answer_keys import exact_key, tenant_of
from penstock.testkit.chats import chat, chat_result, look_up_request

ANN = Call(Principal("acme", team="core", tags=("support",)))
EXACT, SEMANTIC, MISS = (
    common_pb2.CACHE_OUTCOME_EXACT_HIT,
    common_pb2.CACHE_OUTCOME_SEMANTIC_HIT,
    common_pb2.CACHE_OUTCOME_MISS,
)


async def test_the_same_request_has_the_same_answer_and_says_what_it_saved(rig: Any) -> None:
    cache = await rig.make()
    assert (await rig.keep(cache, chat("hello"), chat_result("hi"))).stored
    hit = await rig.look(cache, chat("hello"))
    assert (hit.receipt.outcome, hit.receipt.rule) == (EXACT, "exact")
    assert hit.result.generate.message.content == "hi"
    assert (hit.savings[0].technique, hit.savings[0].microusd) == ("exact_cache", 400)
    assert not hit.token


@pytest.mark.parametrize(
    ("call", "task", "more"),
    [
        (Call(Principal("other", team="core", tags=("support",))), chat("hello"), {}),
        (Call(Principal("acme", team="sales", tags=("support",))), chat("hello"), {}),
        (Call(Principal("acme", team="core", tags=("admin",))), chat("hello"), {}),
        (ANN, chat("hello", system="You are rude."), {}),
        (ANN, chat("hello", tools=[inference_pb2.Tool(name="find")]), {}),
        (ANN, chat("hello", temperature=0.1), {}),
        (ANN, chat("hello", max_tokens=9), {}),
        (ANN, chat("hello"), {"model": "chat-2"}),
        (ANN, chat("hello"), {"namespace": "b"}),
    ],
)
async def test_nothing_crosses_tenants_roles_prompts_tools_parameters_or_models(
    rig: Any, call: Call, task: inference_pb2.Task, more: dict[str, Any]
) -> None:
    cache = await rig.make()
    await rig.keep(cache, chat("hello"), chat_result('{"intent": 1}'))
    assert (await rig.look(cache, task, call, **more)).receipt.outcome == MISS


async def test_earlier_turns_belong_to_the_scope(rig: Any) -> None:
    cache = await rig.make()
    first, second = chat("tell me of France"), chat("tell me of Spain")
    for task in (first, second):
        task.generate.messages.add(role="assistant", content="ok")
        task.generate.messages.add(role="user", content="what is its capital")
    await rig.keep(cache, first, chat_result('{"city": "Paris"}'))
    assert (await rig.look(cache, second)).receipt.outcome == MISS


async def following(cache: CacheServicer, count: int) -> None:
    """Until so many wait for a leader."""
    async with asyncio.timeout(10):
        while cache.waiting < count:
            await asyncio.sleep(0.001)


async def test_followers_get_the_leaders_answer_and_take_over_when_it_fails(rig: Any) -> None:
    cache = await rig.make()
    leader = await rig.look(cache, chat("same"))
    followers = [asyncio.create_task(rig.look(cache, chat("same"))) for _ in range(5)]
    await following(cache, 5)
    assert not any(task.done() for task in followers)
    await cache.Store(pb.StoreRequest(token=leader.token), ANN)  # no answer came
    done, waiting = await asyncio.wait(followers, return_when=asyncio.FIRST_COMPLETED)
    assert len(done) == 1
    second = done.pop().result()
    assert second.receipt.outcome == MISS
    await cache.Store(
        pb.StoreRequest(token=second.token, result=chat_result("yes"), paid_microusd=7), ANN
    )
    for task in waiting:
        found = await task
        assert (found.receipt.rule, found.result.generate.message.content) == ("coalesced", "yes")


async def test_a_follower_that_leaves_passes_the_lead_on(rig: Any) -> None:
    cache = await rig.make()
    leader = await rig.look(cache, chat("same"))
    first, second = (asyncio.create_task(rig.look(cache, chat("same"))) for _ in range(2))
    await following(cache, 2)
    first.cancel()
    await asyncio.wait([first])
    await cache.Store(pb.StoreRequest(token=leader.token), ANN)
    assert (await asyncio.wait_for(second, 5)).receipt.outcome == MISS


@pytest.mark.parametrize(
    ("task", "answer", "reason"),
    [
        (chat("a"), chat_result("cut", inference_pb2.FINISH_REASON_LENGTH), "truncated"),
        (chat("a"), chat_result("", inference_pb2.FINISH_REASON_FILTERED), "filtered"),
        (chat("a"), chat_result("", inference_pb2.FINISH_REASON_UNSPECIFIED), "not ended"),
        (chat("a", temperature=0.9), chat_result("x"), "temperature"),
        (chat("a", temperature=0.2), chat_result("x"), ""),
    ],
)
async def test_what_is_never_kept(
    rig: Any, task: inference_pb2.Task, answer: inference_pb2.TaskResult, reason: str
) -> None:
    cache = await rig.make()
    stored = await rig.keep(cache, task, answer)
    assert (stored.stored, stored.reason) == (not reason, reason or "semantic_off: no judge")
    assert ((await rig.look(cache, task)).receipt.outcome == EXACT) is (not reason)


def test_a_tool_call_is_kept_only_where_it_changes_nothing() -> None:
    tool = inference_pb2.Tool(name="find", read_only=True)
    answer = chat_result("")
    answer.generate.message.tool_calls.add(id="1", name="find", arguments_json='{"b": 1, "a": 2}')
    assert never_kept(chat("x", tools=[tool]), answer, 0.3, asked_for=False) == ""
    assert (
        never_kept(chat("x", tools=[inference_pb2.Tool(name="find")]), answer, 0.3, asked_for=False)
        == "tool call with side effects"
    )
    assert json.loads(answer_class(chat("x"), answer)) == ["tool", [["find", {"a": 2, "b": 1}]]]
    assert answer_class(chat("x"), chat_result("free text")) == ""
    assert answer_class(chat("x"), chat_result('{"b":1,"a":2}')) == answer_class(
        chat("x"), chat_result('{"a": 2, "b": 1}')
    )


async def test_a_complaint_removes_an_answer_and_only_its_tenant_may_complain(rig: Any) -> None:
    cache = await rig.make()
    await rig.keep(cache, chat("hello"), chat_result("wrong"))
    await rig.look(cache, chat("hello"), request_id="r1")
    stranger = Call(Principal("other"))
    assert not (
        await cache.SendFeedback(pb.SendFeedbackRequest(request_id="r1"), stranger)
    ).quarantined
    assert not (
        await cache.SendFeedback(pb.SendFeedbackRequest(request_id="r1", correct=True), ANN)
    ).quarantined
    assert (await cache.SendFeedback(pb.SendFeedbackRequest(request_id="r1"), ANN)).quarantined
    assert (await rig.look(cache, chat("hello"))).receipt.outcome == MISS


async def test_entries_leave_by_tag_and_by_model(rig: Any) -> None:
    cache = await rig.make()
    for number in range(4):
        missed = await rig.look(cache, chat(f"q{number}"), model=f"chat@{number % 2}")
        request = pb.StoreRequest(
            token=missed.token, result=chat_result("x"), tags=["a" if number < 3 else "b"]
        )
        await cache.Store(request, ANN)
    assert (await cache.Invalidate(pb.InvalidateRequest(tags=["b"]), ANN)).removed == 1
    assert (
        await cache.Invalidate(pb.InvalidateRequest(tags=["a"], model="chat"), ANN)
    ).removed == 3
    with pytest.raises(Fault, match="at least one"):
        await cache.Invalidate(pb.InvalidateRequest(), ANN)


async def test_entries_leave_by_scope_and_only_those_of_the_revision_that_it_names(
    rig: Any,
) -> None:
    cache = await rig.make()
    for namespace, model in (
        ("one", "chat@1"),
        ("one", "chat@2"),
        ("two", "chat@1"),
        ("", "chat@1"),
    ):
        await rig.keep(cache, chat("q"), chat_result("x"), namespace=namespace, model=model)

    async def removed(call: Call = ANN, **scope: Any) -> int:
        return (await cache.Invalidate(pb.InvalidateRequest(scope=pb.Scope(**scope)), call)).removed

    assert await removed(Call(Principal("others")), namespace="one") == 0
    assert await removed(namespace="one", model="chat@2") == 1
    assert await removed(namespace="one") == 1
    assert await removed(model="chat@3") == 0
    assert await removed(model="chat") == 2
    with pytest.raises(Fault, match="has 1 bytes") as refused:
        await removed(context_sha256=b"x")
    assert refused.value.field == "scope.context_sha256"


async def test_a_gap_in_the_lessons_makes_a_replica_learn_anew_what_there_is(rig: Any) -> None:
    cache = await rig.make()
    tier = rig.tiers[0]
    for number in range(3):
        await rig.keep(cache, chat(f"pay {number}"), chat_result('{"intent": "pay"}'))
    await rig.until(lambda: sum(len(held.index) for held in tier.scopes()) == 3)
    await rig.client.delete(LESSONS)  # as a trim beyond what was read, or a lost Redis, does
    await rig.keep(cache, chat("lost card"), chat_result('{"intent": "lost"}'))
    await rig.until(lambda: [len(held.index) for held in tier.scopes()] == [1])
    await rig.keep(cache, chat("lost cards"), chat_result('{"intent": "lost"}'))
    await rig.until(lambda: [len(held.index) for held in tier.scopes()] == [2])


async def test_a_trade_off_is_for_its_own_organisation_alone(rig: Any) -> None:
    cache = await rig.make()
    await rig.keep(cache, chat("pay now"), chat_result('{"intent": "pay"}'))
    await rig.until(lambda: bool(rig.tiers[0].scopes()))
    await cache.GetTradeOff(pb.GetTradeOffRequest(), ANN)
    with pytest.raises(Fault, match="no semantic scope"):
        await cache.GetTradeOff(pb.GetTradeOffRequest(), Call(Principal("others")))


async def test_idle_scopes_leave_memory_first(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.cache.semantic.semantic_cache.SCOPES_IN_MEMORY", 2)
    cache = await rig.make()
    tier = rig.tiers[0]
    for number, system in enumerate(("first", "second")):
        await rig.keep(cache, chat("pay now", system), chat_result('{"intent": "pay"}'))
        await rig.until(lambda number=number: len(tier.scopes()) == number + 1)  # type: ignore[misc]
    first, second = tier.names()
    await rig.look(cache, chat("pay soon", "first"))
    await rig.keep(cache, chat("pay now", "third"), chat_result('{"intent": "pay"}'))
    await rig.until(lambda: second not in tier.names())
    assert first in tier.names()


async def test_old_answers_are_not_for_those_who_want_new_ones(rig: Any) -> None:
    cache = await rig.make()
    await rig.keep(cache, chat("hello"), chat_result("hi"))
    await asyncio.sleep(0.03)
    assert (await rig.look(cache, chat("hello"), max_age_ms=10)).receipt.outcome == MISS
    assert (
        await rig.look(cache, chat("hello"), max_age_ms=60_000, namespace="z")
    ).receipt.outcome == MISS


async def test_classification_is_never_by_likeness(rig: Any) -> None:
    """No upstream serves it, and a local model's answer is cheaper than asking."""
    cache = await rig.make()
    task = inference_pb2.Task(classify=inference_pb2.ClassifyTask(texts=["pay now"]))
    missed = await rig.look(cache, task)
    assert (missed.receipt.rule, missed.receipt.scope_id) == ("miss", "")
    await rig.store(cache, missed, inference_pb2.TaskResult(revision="7"))
    assert (await rig.look(cache, task)).receipt.outcome == EXACT


async def test_bytes_are_bounded_also_after_a_restart(rig: Any) -> None:
    cache = await rig.make(tenant_bytes=1 << 16)
    for number in range(40):
        await rig.keep(
            cache, chat(f"q{number}"), chat_result(np.random.default_rng(number).bytes(3_000).hex())
        )
    assert cache._entries.size_bytes <= 1 << 16
    again = await rig.make(tenant_bytes=1 << 16)
    assert again._entries.size_bytes == cache._entries.size_bytes
    assert len(again._entries) == len(cache._entries) < 40


async def test_bytes_are_bounded_for_all_replicas_together(rig: Any) -> None:
    caches = [await rig.make(tenant_bytes=1 << 16, total_bytes=1 << 20) for _ in range(2)]
    for number in range(40):
        await rig.keep(
            caches[number % 2],
            chat(f"q{number}"),
            chat_result(np.random.default_rng(number).bytes(3_000).hex()),
        )

    async def in_store() -> int:
        names = [name async for name in rig.client.scan_iter(match="penstock:cache:*:e:*")]
        return sum([await rig.client.strlen(name) for name in names])

    for _ in range(400):  # each replica alone keeps less than that
        if await in_store() <= 1 << 16:
            break
        await asyncio.sleep(0.02)
    assert 20_000 < await in_store() <= 1 << 16


def test_what_is_used_stays_and_what_saves_little_for_its_bytes_goes_first() -> None:
    kept = Bounded(10_000)
    for number in range(8):
        kept.add(f"n{number}", 1_000, 10)
    kept.used("n0")
    kept.add("dear", 1_000, 100_000)
    gone = [name for number in range(6) for name in kept.add(f"m{number}", 1_000, 10)]
    assert kept.bytes <= 10_000
    assert "n0" in kept
    assert "dear" in kept
    assert set(gone) >= {"n1", "n2"}
    assert kept.add("giant", 20_000, 1) == ["giant"]


@pytest.mark.parametrize(
    ("request_", "call", "field"),
    [
        (look_up_request(chat("x")), Call(), "context.principal.organisation"),
        (pb.LookUpRequest(task=chat("x")), ANN, "scope.model"),
        (pb.LookUpRequest(scope=pb.Scope(model="m")), ANN, "task"),
    ],
)
async def test_bad_requests_name_the_field(
    rig: Any, request_: pb.LookUpRequest, call: Call, field: str
) -> None:
    cache = await rig.make()
    with pytest.raises(Fault) as failed:
        await cache.LookUp(request_, call)
    assert (failed.value.code, failed.value.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    with pytest.raises(Fault, match="not owed"):
        await cache.Store(pb.StoreRequest(token=b"guess"), ANN)


async def test_prompts_teach_replicas_agree_and_a_restart_forgets_nothing(rig: Any) -> None:
    cache = await rig.make()
    assert len(await rig.warm(cache)) > 50
    again = await rig.make()
    old, new = rig.tiers[0].scopes()[0], rig.tiers[1].scopes()[0]
    for _ in range(50):
        if len(old.index) == len(new.index):
            break
        await asyncio.sleep(0.02)
    assert len(old.index) == len(new.index)
    assert old.learnt.calibration.labels == new.learnt.calibration.labels > 150
    stats = await again.GetStats(pb.GetStatsRequest(), ANN)
    assert stats.entries > 100


async def test_what_saves_too_little_is_not_asked_and_free_text_has_no_judge(rig: Any) -> None:
    cache = await rig.make()
    assert (
        await rig.look(cache, chat("hello"), price=0)
    ).receipt.rule == "semantic_off: saves less than it costs"
    assert (
        await rig.look(cache, chat("x" * 3_000))
    ).receipt.rule == "semantic_off: the prompt is too long to compare"
    embed = inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=["a"]))
    assert (await rig.look(cache, embed)).receipt.rule == "miss"


async def listed(cache: CacheServicer, cursor: str = "") -> tuple[bytes, str, bytes]:
    """All pages up to the one that completes: fingerprints, where to go on, salt."""
    found = b""
    while True:
        page = await cache.ListKeys(pb.ListKeysRequest(cursor=cursor), ANN)
        found, cursor = found + page.fingerprints, page.cursor
        if page.complete:
            return found, cursor, page.salt


def vectors(text: str) -> inference_pb2.Task:
    return inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=[text]))


def answer(text: str, **more: Any) -> pb.Answer:
    return pb.Answer(
        scope=pb.Scope(model="mini"),
        task=vectors(text),
        result=inference_pb2.TaskResult(revision="7"),
        **more,
    )


async def test_keys_are_told_page_by_page_and_then_as_they_come_at_any_replica(rig: Any) -> None:
    cache, other = await rig.make(), await rig.make()
    for number in range(2_500):
        await rig.client.set(f"penstock:cache:abc:e:{number:016x}{0:016x}", b"0")
    found, cursor, salt = await listed(cache)
    assert {int.from_bytes(found[at : at + 8], "big") for at in range(0, len(found), 8)} == set(
        range(2_500)
    )
    stored = await other.StoreAll(pb.StoreAllRequest(answers=[answer("a"), answer("b")]), ANN)
    assert stored.stored == 2
    found, cursor, _ = await listed(cache, cursor)
    keys = {
        exact_key(
            salt,
            tenant_of(ANN.principal),
            "",
            "mini",
            b"",
            vectors(text).SerializeToString(deterministic=True),
        )
        for text in ("a", "b")
    }
    assert {found[at : at + 8].hex() for at in range(0, len(found), 8)} == {
        key[:16] for key in keys
    }
    assert (await listed(other, cursor))[0] == b""


async def test_answers_that_nobody_looked_up_are_found_by_their_tenant_alone(rig: Any) -> None:
    cache = await rig.make()
    await cache.StoreAll(
        pb.StoreAllRequest(answers=[answer("a", tags=["docs"], paid_microusd=3)]), ANN
    )
    hit = await rig.look(cache, vectors("a"), model="mini")
    assert (hit.receipt.outcome, hit.result.revision, hit.savings[0].microusd) == (EXACT, "7", 3)
    assert (
        await rig.look(cache, vectors("a"), Call(Principal("other")), model="mini")
    ).receipt.outcome == MISS
    assert cache.tally.all.rules["miss: known not to be kept"] == 1
    assert (await cache.Invalidate(pb.InvalidateRequest(tags=["docs"]), ANN)).removed == 1
    assert (await rig.look(cache, vectors("a"), model="mini")).receipt.outcome == MISS


async def test_an_answer_that_is_not_fit_is_not_kept_and_the_others_are(rig: Any) -> None:
    cache = await rig.make(tenant_bytes=65_536)
    cut = pb.Answer(
        scope=pb.Scope(model="chat"),
        task=chat("hello"),
        result=chat_result("hi", inference_pb2.FINISH_REASON_LENGTH),
    )
    large = answer("b")
    large.result.embed.embeddings.add().values.extend(np.random.default_rng(1).normal(size=30_000))
    stored = await cache.StoreAll(pb.StoreAllRequest(answers=[cut, large, answer("a")]), ANN)
    assert stored.stored == 1
    assert (await rig.look(cache, vectors("b"), model="mini")).receipt.outcome == MISS
    assert (await rig.look(cache, vectors("a"), model="mini")).receipt.outcome == EXACT


@pytest.mark.parametrize(
    ("call", "request_", "field"),
    [
        (Call(), pb.StoreAllRequest(answers=[answer("a")]), "context.principal.organisation"),
        (
            ANN,
            pb.StoreAllRequest(answers=[answer("a"), pb.Answer(task=vectors("b"))]),
            "answers[1].scope.model",
        ),
        (
            ANN,
            pb.StoreAllRequest(answers=[pb.Answer(scope=pb.Scope(model="m"))]),
            "answers[0].task",
        ),
        (
            ANN,
            pb.StoreAllRequest(answers=[pb.Answer(scope=pb.Scope(model="m"), task=vectors("b"))]),
            "answers[0].result",
        ),
        (ANN, pb.StoreAllRequest(answers=[pb.Answer()] * 1_001), "answers"),
    ],
)
async def test_a_bad_batch_is_refused_whole(
    rig: Any, call: Call, request_: pb.StoreAllRequest, field: str
) -> None:
    cache = await rig.make()
    with pytest.raises(Fault) as refused:
        await cache.StoreAll(request_, call)
    assert (refused.value.code, refused.value.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    assert await rig.client.dbsize() == 0


@pytest.mark.parametrize(
    "cursor", ["x", "scan:", "scan:1:2", "follow:0:a-b", "scan:-1:0-0", f"scan:{10**30}:0-0"]
)
async def test_a_strange_cursor_is_refused(rig: Any, cursor: str) -> None:
    cache = await rig.make()
    with pytest.raises(Fault) as refused:
        await cache.ListKeys(pb.ListKeysRequest(cursor=cursor), ANN)
    assert refused.value.code == grpc.StatusCode.INVALID_ARGUMENT
