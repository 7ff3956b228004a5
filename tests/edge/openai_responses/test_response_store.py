"""Responses are kept for their caller alone, for a time and up to a number of bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis.asyncio
from penstock.edge.openai_responses.keeping import KeptResponse, kept_response, page_of
from penstock.edge.openai_responses.request import Context, References
from penstock.edge.openai_responses.response_store import Bounds, RedisResponseStore
from penstock.edge.wire import BadRequest
from penstock.service.store import embedded_store, open_store
from penstock.testkit.eventually import eventually

ANN, BOB = "ann", "bob"
LONG = "x" * 2000


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[redis.asyncio.Redis]:
    async with embedded_store(tmp_path / "redis") as url:
        opened = open_store(url)
        yield opened
        await opened.aclose()


def store_on(client: redis.asyncio.Redis, **bounds: Any) -> RedisResponseStore:
    return RedisResponseStore(client, Bounds(**bounds))


def answered(number: int, said: str = "hello", context: Any = ()) -> KeptResponse:
    """A response: a user's text, and one message of the model."""
    response = {"id": f"resp_{number}", "object": "response"}
    part = {"type": "output_text", "text": said, "annotations": []}
    message = {"type": "message", "id": f"msg_{number}_0", "role": "assistant", "content": [part]}
    return kept_response(response, context, [{"role": "user", "content": said}], [message])


async def items_before(store: RedisResponseStore, caller: str, response_id: str) -> list[str]:
    """Identifiers of the items that the next request of a conversation begins with."""
    context = await store.context(caller, References(response_id))
    return [item["id"] for item in context.items]


async def test_a_response_is_found_with_its_items(client: redis.asyncio.Redis) -> None:
    store = store_on(client)
    kept = answered(1)
    assert await store.save(ANN, kept)
    assert orjson.loads(await store.response(ANN, "resp_1") or b"") == orjson.loads(kept.response)
    assert await items_before(store, ANN, "resp_1") == ["msg_1_i0", "msg_1_0"]


async def test_a_conversation_is_the_items_of_all_its_responses(
    client: redis.asyncio.Redis,
) -> None:
    store = store_on(client)
    context = Context()
    for number in (1, 2, 3):
        await store.save(ANN, answered(number, context=context.items))
        context = await store.context(ANN, References(f"resp_{number}"))
    assert [item["id"] for item in context.items] == [
        *("msg_1_i0", "msg_1_0", "msg_2_i0", "msg_2_0", "msg_3_i0", "msg_3_0")
    ]


async def test_what_a_response_was_made_from_is_listed(client: redis.asyncio.Redis) -> None:
    store = store_on(client)
    await store.save(ANN, answered(1))
    context = await store.context(ANN, References("resp_1"))
    await store.save(ANN, answered(2, context=context.items))
    listed = await store.inputs(ANN, "resp_2") or ()
    assert [item["id"] for item in listed] == ["msg_1_i0", "msg_1_0", "msg_2_i0"]
    assert await store.inputs(ANN, "resp_9") is None


async def test_single_items_are_found_by_their_identifiers(client: redis.asyncio.Redis) -> None:
    store = store_on(client)
    await store.save(ANN, answered(1))
    context = await store.context(ANN, References("", ("msg_1_0", "msg_9"), ("rs_9",)))
    assert list(context.referenced) == ["msg_1_0"]


async def test_nobody_else_finds_a_response(client: redis.asyncio.Redis) -> None:
    store = store_on(client)
    await store.save(ANN, answered(1))
    assert await store.response(BOB, "resp_1") is None
    assert not await store.delete(BOB, "resp_1")
    assert not (await store.context(BOB, References("", ("msg_1_0",)))).referenced
    with pytest.raises(BadRequest) as caught:
        await store.context(BOB, References("resp_1"))
    assert caught.value.param == "previous_response_id"


async def test_a_response_that_is_deleted_is_gone_with_its_items(
    client: redis.asyncio.Redis,
) -> None:
    store = store_on(client)
    await store.save(ANN, answered(1))
    assert await store.delete(ANN, "resp_1")
    assert not await store.delete(ANN, "resp_1")
    assert await store.response(ANN, "resp_1") is None
    assert not (await store.context(ANN, References("", ("msg_1_0",)))).referenced


async def test_what_was_needed_least_recently_makes_room(client: redis.asyncio.Redis) -> None:
    store = store_on(client, max_bytes=12_000)
    for number in range(5):
        assert await store.save(ANN, answered(number, LONG))
    found = [await store.response(ANN, f"resp_{number}") is not None for number in range(5)]
    assert found[0] is False
    assert found[4] is True


async def test_the_bytes_of_a_caller_stay_within_the_bound(client: redis.asyncio.Redis) -> None:
    store = store_on(client, max_bytes=12_000)
    for number in range(20):
        await store.save(ANN, answered(number % 7, LONG))
    kept = [key async for key in client.scan_iter("penstock:responses:*:[ri]:*")]
    assert sum([await client.strlen(key) for key in kept]) <= 12_000


async def test_one_caller_does_not_make_room_for_another(client: redis.asyncio.Redis) -> None:
    store = store_on(client, max_bytes=12_000)
    await store.save(BOB, answered(0))
    for number in range(5):
        await store.save(ANN, answered(number, LONG))
    assert await store.response(BOB, "resp_0") is not None


async def test_what_is_larger_than_the_bounds_is_not_kept(client: redis.asyncio.Redis) -> None:
    assert not await store_on(client, max_bytes=1000).save(ANN, answered(1, LONG))
    assert not await store_on(client, max_items=1).save(ANN, answered(1))
    assert not [key async for key in client.scan_iter("*")]


async def test_everything_of_a_response_goes_after_its_time(client: redis.asyncio.Redis) -> None:
    store = store_on(client, ttl_s=1)
    await store.save(ANN, answered(1))

    async def is_empty() -> bool:
        return not [key async for key in client.scan_iter("*")]

    await eventually(is_empty, 5.0)
    with pytest.raises(BadRequest):
        await store.context(ANN, References("resp_1"))


async def test_a_conversation_that_goes_on_keeps_its_items(client: redis.asyncio.Redis) -> None:
    """The time of items begins anew with each response that needs them."""
    await store_on(client, ttl_s=1).save(ANN, answered(1))
    store = store_on(client, ttl_s=3600)
    context = await store.context(ANN, References("resp_1"))
    await store.save(ANN, answered(2, context=context.items))
    lives = [await client.ttl(key) async for key in client.scan_iter("*:i:*")]
    assert len(lives) == 4
    assert min(lives) > 1000


def test_inputs_are_listed_with_types_parts_and_identifiers() -> None:
    inputs = [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": "ok"},
        {"type": "function_call_output", "call_id": "c", "output": "42", "id": "bad id"},
        {"type": "message", "id": "msg_own", "role": "user", "content": []},
    ]
    kept = kept_response({"id": "resp_1"}, (), inputs, ())
    assert [item["id"] for item in kept.own] == ["msg_1_i0", "msg_1_i1", "fco_1_i2", "msg_own"]
    assert kept.own[0]["content"] == [{"type": "input_text", "text": "go"}]
    assert kept.own[1]["content"][0]["type"] == "output_text"
    assert all(item["status"] == "completed" for item in kept.own)


PAGES = [
    ({"limit": 2, "is_ascending": True, "after": ""}, ["a", "b"], True),
    ({"limit": 2, "is_ascending": True, "after": "b"}, ["c"], False),
    ({"limit": 2, "is_ascending": False, "after": ""}, ["c", "b"], True),
    ({"limit": 9, "is_ascending": False, "after": "z"}, [], False),
]


@pytest.mark.parametrize(("asked", "ids", "has_more"), PAGES)
def test_a_page_of_items(asked: Any, ids: list[str], has_more: bool) -> None:
    page = page_of([{"id": each} for each in "abc"], **asked)
    assert [item["id"] for item in page["data"]] == ids
    assert page["has_more"] is has_more
    assert (page["first_id"], page["last_id"]) == ((ids[0], ids[-1]) if ids else ("", ""))
