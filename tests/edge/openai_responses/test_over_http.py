"""OpenAI's own client against the edge: responses that go on from others, listed and deleted."""

from __future__ import annotations

import openai
import pytest
from echoing_edge import EchoingEdge
from penstock.rpc.errors import unavailable
from penstock.testkit.router import KEY


def client(edge: EchoingEdge, key: str = KEY) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{edge.url}/v1", api_key=key, max_retries=0)


async def test_a_conversation_goes_on_from_the_response_before(edge: EchoingEdge) -> None:
    async with client(edge) as api:
        first = await api.responses.create(model="m", input="one")
        second = await api.responses.create(
            model="m", input="two", previous_response_id=first.id, instructions="be brief"
        )
        assert (first.output_text, second.output_text) == ("ONE", "TWO")
        assert edge.texts == ["be brief", "one", "ONE", "two"]
        assert second.previous_response_id == first.id
        assert second.usage is not None
        assert second.usage.input_tokens_details.cached_tokens == 20


async def test_a_stream_is_kept_before_its_end_is_told(edge: EchoingEdge) -> None:
    async with client(edge) as api:
        async with api.responses.stream(model="m", input="one") as stream:
            first = await stream.get_final_response()
        async with api.responses.stream(
            model="m", input="two", previous_response_id=first.id
        ) as stream:
            assert (await stream.get_final_response()).output_text == "TWO"
    assert edge.texts == ["one", "ONE", "two"]


async def test_a_response_is_retrieved_listed_and_deleted(edge: EchoingEdge) -> None:
    async with client(edge) as api:
        made = await api.responses.create(model="m", input="one", metadata={"k": "v"})
        found = await api.responses.retrieve(made.id)
        assert found.to_dict() == made.to_dict()
        items = await api.responses.input_items.list(made.id, order="asc")
        assert [item.to_dict()["content"][0]["text"] for item in items.data] == ["one"]  # type: ignore[index]
        await api.responses.delete(made.id)
        with pytest.raises(openai.NotFoundError):
            await api.responses.retrieve(made.id)


async def test_what_was_not_stored_is_refused_by_name(edge: EchoingEdge) -> None:
    async with client(edge) as api:
        made = await api.responses.create(model="m", input="one", store=False)
        with pytest.raises(openai.BadRequestError) as caught:
            await api.responses.create(model="m", input="two", previous_response_id=made.id)
        assert caught.value.param == "previous_response_id"


async def test_only_a_key_in_force_sees_what_is_kept(edge: EchoingEdge) -> None:
    async with client(edge) as api:
        made = await api.responses.create(model="m", input="one")
    async with client(edge, "psk-other") as other:
        for act in (other.responses.retrieve, other.responses.delete):
            with pytest.raises(openai.AuthenticationError):
                await act(made.id)


async def test_a_failure_in_the_middle_ends_the_response(edge: EchoingEdge) -> None:
    edge.router.faults = [unavailable("it broke")]
    async with client(edge) as api, api.responses.stream(model="m", input="one") as stream:
        events = [event async for event in stream]
    assert events[-1].type == "response.failed"
    assert events[-1].response.error is not None
    assert events[-1].response.error.message == "it broke"


async def test_hints_are_named(edge: EchoingEdge) -> None:
    async with client(edge) as api:
        raw = await api.responses.with_raw_response.create(model="m", input="one", user="u")
    assert raw.headers["x-penstock-ignored"] == "user"


async def test_a_response_that_has_ended_is_not_streamed_again(edge: EchoingEdge) -> None:
    async with client(edge) as api:
        made = await api.responses.create(model="m", input="one")
        with pytest.raises(openai.BadRequestError) as caught:
            await api.responses.retrieve(made.id, stream=True)
    assert caught.value.param == "stream"


async def test_a_response_that_is_not_there_has_a_code_of_its_own(edge: EchoingEdge) -> None:
    async with client(edge) as api:
        with pytest.raises(openai.NotFoundError) as caught:
            await api.responses.retrieve("resp_9")
    assert caught.value.code == "not_found"


async def test_input_tokens_are_counted_with_what_goes_before(edge: EchoingEdge) -> None:
    long = "many words of a long conversation " * 20
    async with client(edge) as api:
        made = await api.responses.create(model="m", input=long)
        nothing = await api.responses.input_tokens.count(model="m")
        own = await api.responses.input_tokens.count(model="m", input="two")
        after = await api.responses.input_tokens.count(
            model="m", input="two", previous_response_id=made.id
        )
        with pytest.raises(openai.BadRequestError) as unknown:
            await api.responses.input_tokens.count(input="x", previous_response_id="resp_9")
        with pytest.raises(openai.BadRequestError) as wrong:
            await api.responses.input_tokens.count(input=5)  # type: ignore[arg-type]
    assert own.object == "response.input_tokens"
    assert nothing.input_tokens < own.input_tokens < 20 < after.input_tokens
    assert unknown.value.param == "previous_response_id"
    assert wrong.value.param == "input"


async def test_input_tokens_are_counted_for_a_key_in_force_only(edge: EchoingEdge) -> None:
    async with client(edge, "psk-other") as api:
        with pytest.raises(openai.AuthenticationError):
            await api.responses.input_tokens.count(model="m", input="two")


async def test_a_response_that_was_waited_for_is_not_cancelled(edge: EchoingEdge) -> None:
    async with client(edge) as api:
        made = await api.responses.create(model="m", input="one")
        with pytest.raises(openai.BadRequestError):
            await api.responses.cancel(made.id)
        with pytest.raises(openai.NotFoundError):
            await api.responses.cancel("resp_9")
