"""Is there an answer that may be reused? Exact, in flight, by meaning; and what is never kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.testkit.eventually import eventually

from .caching import BYPASSED, EXACT, MISS, kept, never_kept
from .calls import Api, Caller, Counted, chat
from .instance import Asked, Script, Serve, echo, said

JSON_OBJECT = inference_pb2.ResponseFormat(kind=inference_pb2.RESPONSE_FORMAT_KIND_JSON_OBJECT)

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="session")]
Pieces = AsyncIterator[inference_pb2.GenerateChunk | inference_pb2.TaskResult]


async def test_the_same_request_is_answered_from_what_is_kept_and_costs_nothing(
    caller: Caller, model: str, serve: Serve
) -> None:
    async with serve(echo, model) as instance:
        first = await caller.generate(chat("hello"), model=model)
        assert first.receipt.cache.outcome == MISS
        # asking for likeness costs 2 micro-dollars in computing; the answer 7 + 2 * 3
        assert first.receipt.cost == common_pb2.Cost(
            paid_microusd=15, saved_microusd=-2, full_price_microusd=13
        )
        again = await kept(caller, instance, "hello", model=model)
        assert len(instance.asked) == 1
    assert again.result == first.result
    receipt = again.receipt
    assert receipt.cost == common_pb2.Cost(saved_microusd=13, full_price_microusd=13)
    (saving,) = receipt.savings
    assert (saving.technique, saving.microusd) == ("exact_cache", 13)
    assert receipt.cache.rule in ("exact", "exact: copy")
    assert not receipt.HasField("route")
    assert not receipt.HasField("batch")
    assert receipt.usage == first.receipt.usage
    assert (receipt.model, receipt.revision) == (model, "scripted")
    assert receipt.request_id != first.receipt.request_id

    async def booked() -> None:
        # the hit is a request, with its tokens, and without money; so is a repeat before it that
        # shared the first answer
        rows = await caller.api.ledger(caller.key, model)
        assert rows["all-requests"].committed >= 2
        assert rows["all-requests"].held == 0
        assert rows["all-money"] == Counted(15)

    await eventually(booked)


async def test_a_copy_outlives_a_second_in_the_cache(
    caller: Caller, model: str, serve: Serve
) -> None:
    """The router's own copy lasts a second; the cache's entry has an id, by which it is removed."""
    async with serve(echo, model) as instance:
        await caller.generate(chat("hello"), model=model)

        async def from_the_cache() -> common_pb2.CacheReceipt:
            cache = (await caller.generate(chat("hello"), model=model)).receipt.cache
            assert (cache.outcome, cache.rule) == (EXACT, "exact")
            return cache

        receipt = await eventually(from_the_cache, every_s=0.2)
        assert len(instance.asked) == 1
    assert len(receipt.entry_id) == 32
    assert receipt.age_ms > 0
    assert receipt.lookup_ms > 0


@pytest.mark.parametrize(
    "change",
    [
        {"system": "Be brief."},
        {"max_tokens": 9},
        {"temperature": 0.1},
        {"stop": ["x"]},
        {"seed": 1},
        {"response_format": JSON_OBJECT},
        {"reasoning": inference_pb2.ReasoningOptions(effort="low")},
        {"extra_json": '{"top_k": 4}'},
    ],
)
async def test_any_part_of_a_request_makes_it_another(
    caller: Caller, model: str, serve: Serve, change: dict[str, Any]
) -> None:
    async with serve(echo, model) as instance:
        await kept(caller, instance, "hello", model=model)
        answer = await caller.generate(chat("hello", **change), model=model)
        assert answer.receipt.cache.outcome == MISS
        assert len(instance.asked) == 2


async def test_a_namespace_and_a_model_keep_for_themselves(
    caller: Caller, api: Api, serve: Serve
) -> None:
    one, two = api.system.fresh_model(), api.system.fresh_model()
    async with serve(echo, one, two) as instance:
        await kept(caller, instance, "hello", model=one)
        apart = await caller.generate(chat("hello"), model=one, cache={"namespace": "apart"})
        other = await caller.generate(chat("hello"), model=two)
    assert apart.receipt.cache.outcome == other.receipt.cache.outcome == MISS


async def test_nothing_crosses_between_organisations_teams_and_tags(
    api: Api, model: str, serve: Serve
) -> None:
    async with serve(echo, model) as instance:
        await kept(api.caller("firm-red"), instance, "hello", model=model)
        # another user of the same team shares it
        shared = await api.caller("firm-red-too").generate(chat("hello"), model=model)
        assert shared.receipt.cache.outcome == EXACT
        for stranger in ("firm-blue", "firm-tagged", api.system.fresh_tenant()):
            answer = await api.caller(stranger).generate(chat("hello"), model=model)
            assert answer.receipt.cache.outcome == MISS


async def test_whoever_bypasses_neither_finds_nor_leaves(
    caller: Caller, model: str, serve: Serve
) -> None:
    async with serve(echo, model) as instance:
        await never_kept(caller, chat("a"), model=model, cache={"bypass": True})
        await kept(caller, instance, "b", model=model)
        answer = await caller.generate(chat("b"), model=model, cache={"bypass": True})
    assert answer.receipt.cache.outcome == BYPASSED
    assert not answer.receipt.savings


async def test_whoever_does_not_store_finds_and_leaves_nothing(
    caller: Caller, model: str, serve: Serve
) -> None:
    async with serve(echo, model) as instance:
        await never_kept(caller, chat("a"), model=model, cache={"no_store": True})
        await kept(caller, instance, "b", model=model)
        found = await caller.generate(chat("b"), model=model, cache={"no_store": True})
    assert found.receipt.cache.outcome == EXACT


async def test_an_answer_older_than_asked_for_is_not_reused(
    caller: Caller, model: str, serve: Serve
) -> None:
    async with serve(echo, model) as instance:
        first = await kept(caller, instance, "hello", model=model)

        async def older() -> None:
            answer = await caller.generate(chat("hello"), model=model, cache={"max_age_ms": 60_000})
            assert answer.receipt.cache.age_ms > 50

        await eventually(older)
        answer = await caller.generate(chat("hello"), model=model, cache={"max_age_ms": 50})
        assert first.receipt.cache.outcome == EXACT
        assert answer.receipt.cache.outcome == MISS
        assert len(instance.asked) == 2


def answering(finish: int, *tools: str) -> Script:
    """A script whose answer ends so, or calls these tools."""

    async def script(asked: Asked) -> Pieces:
        result = said("answer")
        result.generate.finish_reason = finish  # type: ignore[assignment]
        for name in tools:
            result.generate.message.tool_calls.add(id="c", name=name, arguments_json="{}")
        yield result

    return script


TOOL_CALLS = inference_pb2.FINISH_REASON_TOOL_CALLS


@pytest.mark.parametrize(
    ("finish", "tools"),
    [
        (inference_pb2.FINISH_REASON_LENGTH, ()),
        (inference_pb2.FINISH_REASON_FILTERED, ()),
        (inference_pb2.FINISH_REASON_UNSPECIFIED, ()),
        (TOOL_CALLS, ("write",)),
        (TOOL_CALLS, ("read", "write")),
    ],
)
async def test_what_is_never_kept(
    caller: Caller, model: str, serve: Serve, finish: int, tools: tuple[str, ...]
) -> None:
    task = chat("hello")
    task.tools.add(name="read", read_only=True)
    task.tools.add(name="write")
    async with serve(answering(finish, *tools), model):
        await never_kept(caller, task, model=model)


async def test_calls_of_tools_that_only_read_are_kept(
    caller: Caller, model: str, serve: Serve
) -> None:
    task = chat("hello")
    task.tools.add(name="read", read_only=True)

    async def hit() -> None:
        assert (await caller.generate(task, model=model)).receipt.cache.outcome == EXACT

    async with serve(answering(TOOL_CALLS, "read"), model):
        await eventually(hit)


async def test_a_warm_answer_is_kept_only_where_reuse_is_asked_for(
    caller: Caller, model: str, serve: Serve
) -> None:
    warm = chat("hello", temperature=0.9)

    async def hit() -> None:
        answer = await caller.generate(warm, model=model, cache={"tags": ["x"]})
        assert answer.receipt.cache.outcome == EXACT

    async with serve(echo, model):
        await never_kept(caller, warm, model=model)
        await eventually(hit)


async def test_vectors_are_kept_too_and_unknown_ones_are_not_looked_up(caller: Caller) -> None:
    async def known_not_to_be_kept() -> None:
        text = f"a text that comes once {asyncio.get_running_loop().time()}"
        receipt = (await caller.embed(text)).receipt
        assert receipt.cache.rule == "miss: known not to be kept"
        assert receipt.cache.lookup_ms == 0

    await eventually(known_not_to_be_kept)
    first = await caller.embed("the same text")

    async def hit() -> pb.EmbedResponse:
        answer = await caller.embed("the same text")
        assert answer.receipt.cache.outcome == EXACT
        return answer

    again = await eventually(hit)
    assert again.embeddings == first.embeddings
    assert (again.receipt.cost.paid_microusd, again.receipt.cost.saved_microusd) == (0, 1)
