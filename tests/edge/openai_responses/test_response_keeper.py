"""Conversations over the store: what is kept is found; a store that fails costs what needs it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.edge.openai_responses.response_keeper import ResponseKeeper
from penstock.edge.openai_responses.response_store import Bounds, RedisResponseStore
from penstock.edge.openai_responses.wire import OpenAIResponses
from penstock.edge.wire import BadRequest, Identity
from penstock.rpc.errors import Fault
from penstock.rpc.reasons import Reason
from penstock.service.store import embedded_store, open_store

ANN, BOB = "ann", "bob"
USAGE = common_pb2.Usage(input_tokens=5, output_tokens=2)


@pytest.fixture
async def keeper(tmp_path: Path) -> AsyncIterator[ResponseKeeper]:
    async with embedded_store(tmp_path / "redis") as url:
        client = open_store(url)
        yield ResponseKeeper(RedisResponseStore(client, Bounds()))
        await client.aclose()


@pytest.fixture
async def broken(tmp_path: Path) -> AsyncIterator[ResponseKeeper]:
    """A keeper whose store is not there."""
    client = open_store(f"unix://{tmp_path / 'nobody.sock'}", retries=0)
    yield ResponseKeeper(RedisResponseStore(client, Bounds()))
    await client.aclose()


def body(said: str, **fields: Any) -> bytes:
    return orjson.dumps({"model": "m", "input": said, **fields})


def answer(said: str) -> pb.GenerateResult:
    made = pb.GenerateResult(finish_reason=pb.FINISH_REASON_STOP)
    made.message.content = said
    return made


async def converse(keeper: ResponseKeeper, number: str, said: str, **fields: Any) -> list[str]:
    """Ask and keep the answer; returns the texts that the model saw."""
    asked = await keeper.read(ANN, body(said, **fields), {})
    await keeper.keep_whole(ANN, answer(f"re: {said}"), USAGE, asked, Identity(number, 1, "m"))
    return [turn.content for turn in asked.task.messages]


async def test_a_conversation_goes_on_from_the_response_before(keeper: ResponseKeeper) -> None:
    await converse(keeper, "1", "one")
    await converse(keeper, "2", "two", previous_response_id="resp_1")
    seen = await converse(keeper, "3", "three", previous_response_id="resp_2")
    assert seen == ["one", "re: one", "two", "re: two", "three"]


async def test_instructions_are_not_carried_over(keeper: ResponseKeeper) -> None:
    await converse(keeper, "1", "one", instructions="be brief")
    seen = await converse(keeper, "2", "two", previous_response_id="resp_1")
    assert seen == ["one", "re: one", "two"]


async def test_a_streamed_answer_is_kept_too(keeper: ResponseKeeper) -> None:
    wire_asked = await keeper.read(ANN, body("one"), {})
    events = OpenAIResponses().events(wire_asked, Identity("1", 1, "m"))
    events.start()
    events.piece(pb.GenerateChunk(delta="re: one", finish_reason=pb.FINISH_REASON_STOP))
    events.end(USAGE)
    await keeper.keep_streamed(ANN, events)
    assert await converse(keeper, "2", "two", previous_response_id="resp_1") == [
        *("one", "re: one", "two")
    ]


async def test_an_item_is_referred_to(keeper: ResponseKeeper) -> None:
    await converse(keeper, "1", "one")
    items = [{"type": "item_reference", "id": "msg_1_0"}, {"role": "user", "content": "two"}]
    asked = await keeper.read(ANN, orjson.dumps({"model": "m", "input": items}), {})
    assert [turn.content for turn in asked.task.messages] == ["re: one", "two"]


async def test_a_response_is_shown_listed_and_deleted(keeper: ResponseKeeper) -> None:
    await converse(keeper, "1", "one")
    assert orjson.loads(await keeper.response(ANN, "resp_1"))["id"] == "resp_1"
    page = orjson.loads(await keeper.input_items(ANN, "resp_1", {}))
    assert [item["content"][0]["text"] for item in page["data"]] == ["one"]
    assert orjson.loads(await keeper.delete(ANN, "resp_1"))["deleted"] is True
    with pytest.raises(Fault) as caught:
        await keeper.response(ANN, "resp_1")
    assert caught.value.reason is Reason.NOT_FOUND


async def test_nobody_else_sees_a_response(keeper: ResponseKeeper) -> None:
    await converse(keeper, "1", "one")
    for act in (keeper.response, keeper.delete):
        with pytest.raises(Fault):
            await act(BOB, "resp_1")
    with pytest.raises(BadRequest):
        await keeper.read(BOB, body("two", previous_response_id="resp_1"), {})


@pytest.mark.parametrize("query", [{"limit": "0"}, {"limit": "x"}, {"order": "up"}])
async def test_a_wrong_parameter_is_refused(keeper: ResponseKeeper, query: Any) -> None:
    with pytest.raises(BadRequest) as caught:
        await keeper.input_items(ANN, "resp_1", query)
    assert caught.value.param == next(iter(query))


async def test_what_needs_no_store_is_served_without_one(broken: ResponseKeeper) -> None:
    assert await converse(broken, "1", "one") == ["one"]


async def test_what_needs_the_store_fails_by_name_without_it(broken: ResponseKeeper) -> None:
    with pytest.raises(Fault) as caught:
        await converse(broken, "2", "two", previous_response_id="resp_1")
    assert caught.value.reason is Reason.STORE_UNAVAILABLE
    with pytest.raises(Fault):
        await broken.response(ANN, "resp_1")


async def test_without_a_store_nothing_is_kept_and_references_are_refused() -> None:
    keeper = ResponseKeeper(None)
    assert await converse(keeper, "1", "one") == ["one"]
    with pytest.raises(BadRequest):
        await converse(keeper, "2", "two", previous_response_id="resp_1")
    with pytest.raises(Fault):
        await keeper.response(ANN, "resp_1")
