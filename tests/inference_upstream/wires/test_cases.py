"""Faults that users report of gateways, each tried on the service before an upstream that shows it.

The numbers are those of the list of cases in the issue on wires.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from typing import Any

import pytest
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.rpc.errors import Fault
from penstock.tasks.kinds import GENERATE
from penstock.testkit.raw_upstream import RawAnswer, RawRequest, events, whole

from ..rig import asking, serving

PARIS = '{"city":"Paris"}'


def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"delta": delta, "finish_reason": finish}]}


def completion(message: dict[str, Any], finish: str | None = "stop", **more: Any) -> dict[str, Any]:
    return {"choices": [{"message": message, "finish_reason": finish}], **more}


def calls_of(result: pb.TaskResult) -> list[tuple[str, str, str]]:
    return [
        (call.id, call.name, call.arguments_json) for call in result.generate.message.tool_calls
    ]


def why_not_kept(task: pb.GenerateTask, result: pb.TaskResult) -> str:
    return GENERATE.unstorable_because(pb.Task(generate=task), result, 2.0, asked_for=True)


@pytest.mark.wire_case(1)
@pytest.mark.parametrize("index", [{}, {"index": None}, {"index": 0}])
async def test_parallel_calls_without_an_index_of_their_own_stay_apart(
    index: dict[str, Any],
) -> None:
    pieces = [
        {**index, "id": "a1", "function": {"name": "get_weather", "arguments": PARIS}},
        {**index, "id": "b2", "function": {"name": "get_time", "arguments": PARIS}},
    ]
    stream = events(*(chunk({"tool_calls": [piece]}) for piece in pieces), chunk({}, "tool_calls"))
    async with serving(stream) as rig:
        chunks, result = await rig.chunks(asking())
    assert calls_of(result) == [("a1", "get_weather", PARIS), ("b2", "get_time", PARIS)]
    deltas = [delta for each in chunks for delta in each.tool_calls]
    assert [(delta.index, delta.id) for delta in deltas] == [(0, "a1"), (1, "b2")]


@pytest.mark.wire_case(2)
async def test_name_and_id_that_each_piece_repeats_are_set_once() -> None:
    pieces = [
        {"index": 0, "id": "c1", "function": {"name": "find", "arguments": text}}
        for text in ('{"q":', '"x"}')
    ]
    stream = events(*(chunk({"tool_calls": [piece]}) for piece in pieces), chunk({}, "tool_calls"))
    async with serving(stream) as rig:
        chunks, result = await rig.chunks(asking())
    assert calls_of(result) == [("c1", "find", '{"q":"x"}')]
    deltas = [delta for each in chunks for delta in each.tool_calls]
    assert [(delta.id, delta.name) for delta in deltas] == [("c1", "find"), ("", "")]


@pytest.mark.wire_case(3)
@pytest.mark.parametrize("finish", ["abort", "error", "something_new", None])
async def test_a_finish_reason_that_is_no_end_is_a_failure(finish: str | None) -> None:
    for answer, ask in (
        (events(chunk({"content": "half"}), chunk({}, finish)), "streamed"),
        (whole(completion({"content": "half"}, finish)), "whole"),
    ):
        async with serving(answer) as rig:
            with pytest.raises(Fault) as failed:
                await getattr(rig, ask)(asking())
        assert failed.value.reason in ("UPSTREAM_ERROR", "STREAM_CUT", "UPSTREAM_MALFORMED")


@pytest.mark.wire_case(3)
async def test_stop_with_tool_calls_asks_for_tools() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    async with serving(whole(completion({"content": None, "tool_calls": [call]}))) as rig:
        result = await rig.whole(asking())
    assert result.generate.finish_reason == pb.FINISH_REASON_TOOL_CALLS


@pytest.mark.wire_case(3)
async def test_an_operator_can_say_what_a_finish_reason_means() -> None:
    switches = {"finish_reasons": {"done": "stop"}}
    answer = whole(completion({"content": "all"}, "done"))
    async with serving(answer, switches=switches) as rig:
        result = await rig.whole(asking())
    assert result.generate.finish_reason == pb.FINISH_REASON_STOP
    assert result.generate.stop_reason == "done"


@pytest.mark.wire_case(4)
async def test_a_refusal_reaches_the_caller_is_not_kept_and_can_be_sent_back() -> None:
    answer = whole(completion({"content": None, "refusal": "I cannot."}))
    task = asking()
    async with serving(answer) as rig:
        refused = await rig.whole(task)
        assert refused.generate.message.refusal == "I cannot."
        assert refused.generate.finish_reason == pb.FINISH_REASON_REFUSED
        assert why_not_kept(task, refused) == "refused"

        task.messages.append(refused.generate.message)
        task.messages.add(role=pb.ROLE_USER, content="why?")
        GENERATE.validate(pb.Task(generate=task), "")
        await rig.whole(task)
        assert rig.sent["messages"][1] == {
            "role": "assistant",
            "content": None,
            "refusal": "I cannot.",
        }


@pytest.mark.wire_case(4)
async def test_an_empty_answer_is_not_kept_and_can_be_sent_back() -> None:
    task = asking()
    async with serving(whole(completion({"content": ""}))) as rig:
        empty = await rig.whole(task)
        assert why_not_kept(task, empty) == "empty"
        task.messages.append(empty.generate.message)
        GENERATE.validate(pb.Task(generate=task), "")
        await rig.whole(task)
        assert rig.sent["messages"][1] == {"role": "assistant", "content": ""}


@pytest.mark.wire_case(4)
async def test_an_empty_turn_is_left_out_where_the_provider_refuses_empty_texts() -> None:
    answer = whole({"content": [{"type": "text", "text": "hi"}], "stop_reason": "end_turn"})
    task = asking()
    task.messages.add(role=pb.ROLE_ASSISTANT)
    task.messages.add(role=pb.ROLE_USER, content="still there?")
    async with serving(answer, provider="anthropic") as rig:
        await rig.whole(task)
        (turn,) = rig.sent["messages"]
    assert [block["text"] for block in turn["content"]] == ["go", "still there?"]


@pytest.mark.wire_case(5)
@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 10,
                "total_tokens": 410,
                "completion_tokens_details": {"reasoning_tokens": 300},
            },
            (100, 310, 300),
        ),
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 310,
                "total_tokens": 410,
                "completion_tokens_details": {"reasoning_tokens": 300},
            },
            (100, 310, 300),
        ),
        ({"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 410}, (100, 310, 300)),
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 10,
                "completion_tokens_details": {"reasoning_tokens": 300},
            },
            (100, 310, 300),
        ),
        ({"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 90}, (100, 10, 0)),
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 10,
                "total_tokens": 150,
                "prompt_tokens_details": {"cached_tokens": 40},
            },
            (140, 10, 0),
        ),
    ],
)
async def test_all_tokens_that_the_provider_bills_are_counted(
    usage: dict[str, Any], tokens: tuple[int, int, int]
) -> None:
    async with serving(whole(completion({"content": "42"}, usage=usage))) as rig:
        counted = (await rig.whole(asking())).usage
    assert (counted.input_tokens, counted.output_tokens, counted.reasoning_tokens) == tokens
    assert not counted.estimated


@pytest.mark.wire_case(6)
@pytest.mark.parametrize("value", [0.7, 0.1, 1.0, 0.0, 1.3, 0.333333, 2.0, 1e-7])
async def test_numbers_leave_as_they_were_given(value: float) -> None:
    top_p = min(1.0, max(1e-7, value))
    async with serving(whole(completion({"content": "x"}))) as rig:
        await rig.whole(asking(temperature=value, top_p=top_p))
        assert (rig.sent["temperature"], rig.sent["top_p"]) == (value, top_p)


@pytest.mark.wire_case(7)
async def test_opaque_state_of_a_tool_call_goes_round_untouched() -> None:
    extra = {"extra_content": {"google": {"thought_signature": "c2lnbmF0dXJl+/="}}}
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}, **extra}
    task = asking()
    async with serving(
        events(chunk({"tool_calls": [call]}), chunk({}, "tool_calls")), provider="gemini"
    ) as rig:
        task.messages.append((await rig.streamed(task)).generate.message)
        task.messages.add(role=pb.ROLE_TOOL, tool_call_id="c1", content="1")
        await rig.streamed(task)
        assert rig.sent["messages"][1]["tool_calls"] == [call]


@pytest.mark.wire_case(7)
async def test_reasoning_goes_back_in_the_field_in_which_it_came() -> None:
    details = [{"type": "reasoning.encrypted", "data": "ZGF0YQ==", "index": 0}]
    for message, sent_back in (
        ({"reasoning_content": "think"}, {"reasoning_content": "think"}),
        ({"reasoning": "think"}, {"reasoning": "think"}),
        ({"reasoning_details": details}, {"reasoning_details": details}),
    ):
        task = asking()
        async with serving(whole(completion({"content": "42", **message}))) as rig:
            task.messages.append((await rig.whole(task)).generate.message)
            await rig.whole(task)
            turn = rig.sent["messages"][1]
        assert turn == {"role": "assistant", "content": "42", **sent_back}


@pytest.mark.wire_case(7)
async def test_signed_thinking_goes_back_in_order_and_unmodified() -> None:
    blocks = [
        {"type": "thinking", "thinking": "", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "ZGF0YQ=="},
        {"type": "text", "text": "Let me look."},
        {"type": "thinking", "thinking": "hm", "signature": "c2lnMg=="},
        {"type": "tool_use", "id": "t1", "name": "f", "input": {"b": 1, "a": 2}},
    ]
    answer = whole({"content": blocks, "stop_reason": "tool_use"})
    task = asking()
    async with serving(answer, provider="anthropic") as rig:
        task.messages.append((await rig.whole(task)).generate.message)
        task.messages.add(role=pb.ROLE_TOOL, tool_call_id="t1", content="no", is_error=True)
        await rig.whole(task)
        _, turn, result = rig.sent["messages"]
    assert turn == {"role": "assistant", "content": blocks}
    assert json.dumps(turn["content"][4]["input"]) == '{"b": 1, "a": 2}'
    assert result["content"] == [
        {"type": "tool_result", "tool_use_id": "t1", "content": "no", "is_error": True}
    ]


@pytest.mark.wire_case(7)
async def test_reasoning_of_one_wire_is_not_sent_to_another() -> None:
    task = asking()
    turn = task.messages.add(role=pb.ROLE_ASSISTANT, content="42")
    turn.reasoning.add(text="hm", state=b"c2ln", format="anthropic.thinking")
    async with serving(whole(completion({"content": "x"}))) as rig:
        await rig.whole(task)
        assert rig.sent["messages"][1] == {"role": "assistant", "content": "42"}


@pytest.mark.wire_case(8)
async def test_every_parameter_that_servers_refuse_can_be_switched_off() -> None:
    switches = {
        "length_parameter": "max_tokens",
        "stream_usage": False,
        "strict_schemas": False,
        "temperature": False,
        "parallel_tools": False,
        "omit": ["seed"],
        "body": {"enable_thinking": False},
    }
    schema = pb.ResponseFormat(
        kind=pb.RESPONSE_FORMAT_KIND_JSON_SCHEMA, schema_json='{"type": "object"}', strict=True
    )
    task = asking(
        max_tokens=7,
        temperature=0.5,
        seed=3,
        response_format=schema,
        parallel_tool_calls=True,
        extra_json='{"top_k": 40}',
    )
    task.tools.add(name="f", strict=True)
    async with serving(events(chunk({"content": "x"}, "stop")), {"switches": switches}) as rig:
        await rig.streamed(task)
        sent = rig.sent
    assert sent["max_tokens"] == 7
    assert sent["top_k"] == 40
    assert sent["enable_thinking"] is False
    left_out = {"max_completion_tokens", "stream_options", "temperature", "seed"}
    assert not (left_out | {"parallel_tool_calls"}) & set(sent)
    assert "strict" not in json.dumps(sent)


@pytest.mark.threat("parameter injection into a provider's request")
@pytest.mark.wire_case(8)
@pytest.mark.parametrize("name", ["n", "stream", "best_of", "model", "max_tokens", "messages"])
async def test_further_fields_cannot_multiply_a_call_or_say_another(name: str) -> None:
    async with serving(whole(completion({"content": "x"}))) as rig:
        with pytest.raises(Fault, match=name) as failed:
            await rig.whole(asking(extra_json=json.dumps({name: 5})))
        assert failed.value.field == "task.generate.extra_json"
        assert not rig.upstream.requests


@pytest.mark.wire_case(9)
@pytest.mark.parametrize(
    ("provider", "mark"),
    [
        ("openrouter", {"cache_control": {"type": "ephemeral"}}),
        ("openai", {"prompt_cache_breakpoint": {"mode": "explicit"}}),
    ],
)
async def test_cache_breakpoints_leave_where_the_wire_has_them(
    provider: str, mark: dict[str, Any]
) -> None:
    task = asking()
    task.messages[0].cache_breakpoint = True
    async with serving(whole(completion({"content": "x"})), provider=provider) as rig:
        await rig.whole(task)
        assert rig.sent["messages"][0]["content"] == [{"type": "text", "text": "go", **mark}]


@pytest.mark.wire_case(9)
async def test_no_breakpoint_is_sent_to_a_server_that_is_not_known_to_take_one() -> None:
    task = asking()
    task.messages[0].cache_breakpoint = True
    async with serving(whole(completion({"content": "x"}))) as rig:
        await rig.whole(task)
        assert rig.sent["messages"][0] == {"role": "user", "content": "go"}


@pytest.mark.wire_case(10)
async def test_a_later_system_turn_is_the_users_where_the_model_takes_none() -> None:
    task = pb.GenerateTask()
    for role, text in (
        (pb.ROLE_SYSTEM, "You help."),
        (pb.ROLE_USER, "hi"),
        (pb.ROLE_SYSTEM, "Be brief."),
    ):
        task.messages.add(role=role, content=text)
    for turns, roles in (
        ("anywhere", ["system", "user", "system"]),
        ("first", ["system", "user", "user"]),
        ("none", ["user", "user", "user"]),
    ):
        switches = {"system_turns": turns}
        async with serving(whole(completion({"content": "x"})), switches=switches) as rig:
            await rig.whole(task)
            assert [turn["role"] for turn in rig.sent["messages"]] == roles


@pytest.mark.wire_case(11)
async def test_the_properties_of_schemas_reach_the_model_in_their_order() -> None:
    schema = '{"type": "object", "properties": {"reasoning": {}, "answer": {}, "a": {}}}'
    form = pb.ResponseFormat(kind=pb.RESPONSE_FORMAT_KIND_JSON_SCHEMA, schema_json=schema)
    task = asking(response_format=form)
    task.tools.add(name="f", parameters_json=schema)
    async with serving(whole(completion({"content": "x"}))) as rig:
        await rig.whole(task)
        sent = rig.sent
    for told in (
        sent["response_format"]["json_schema"]["schema"],
        sent["tools"][0]["function"]["parameters"],
    ):
        assert json.dumps(told) == schema


@pytest.mark.wire_case(12)
async def test_a_whole_answer_may_take_longer_than_a_stream_may_be_silent() -> None:
    made = asyncio.Event()
    answer = whole(completion({"content": "x"}))._replace(once=made)
    waits = {"first_byte_timeout_ms": 1, "silence_timeout_ms": 20_000}
    async with serving(answer, **waits) as rig:
        with pytest.raises(Fault) as failed:
            await rig.streamed(asking())
        assert failed.value.reason == "UPSTREAM_SILENT"
        # Fifty times as long as a stream may take to begin.
        asyncio.get_running_loop().call_later(0.05, made.set)
        assert (await rig.whole(asking())).generate.message.content == "x"


@pytest.mark.wire_case(12)
async def test_a_model_has_waits_of_its_own() -> None:
    never = whole(completion({"content": "x"}))._replace(once=asyncio.Event())
    async with serving(never, {"whole_timeout_ms": 1}, whole_timeout_ms=20_000) as rig:
        with pytest.raises(Fault) as failed:
            await rig.whole(asking())
        assert failed.value.reason == "UPSTREAM_SILENT"


@pytest.mark.wire_case(13)
async def test_embeddings_are_split_to_the_upstreams_limit_and_joined_in_order() -> None:
    def embed(request: RawRequest) -> RawAnswer:
        texts = request.body["input"]
        if len(texts) > 32:
            return whole({"error": "batch size exceeds 32"}, 413)
        rows = [{"index": at, "embedding": [float(text)]} for at, text in enumerate(texts)]
        return whole({"data": rows[::-1], "usage": {"prompt_tokens": len(texts)}})

    texts = [str(number) for number in range(100)]
    task = pb.Task(embed=pb.EmbedTask(texts=texts))
    model = {"tasks": ["embed"], "max_embed_texts": 32}
    async with serving(embed, model) as rig:
        result = await rig.compute(task)
        assert [len(request.body["input"]) for request in rig.upstream.requests] == [32, 32, 32, 4]
    vectors = [list(row.values) for row in result.embed.embeddings]
    assert vectors == [[float(number)] for number in range(100)]
    assert result.usage.input_tokens == 100


@pytest.mark.wire_case(14)
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "raw deflate"])
async def test_an_upstream_that_compresses_all_the_same_is_read(encoding: str) -> None:
    def squeezed(body: bytes) -> bytes:
        if encoding == "gzip":
            return gzip.compress(body)
        return zlib.compress(body) if encoding == "deflate" else zlib.compress(body)[2:-4]

    headers = {"content-encoding": encoding.removeprefix("raw ")}
    one = json.dumps(completion({"content": "héllo"})).encode()
    stream = b"".join(events(chunk({"content": "hél"}), chunk({"content": "lo"}, "stop")).pieces)
    for body, content_type, ask in (
        (one, "application/json", "whole"),
        (stream, "text/event-stream", "streamed"),
    ):
        data = squeezed(body)
        answer = RawAnswer([data[:9], data[9:]], 200, content_type, headers)
        async with serving(answer) as rig:
            result = await getattr(rig, ask)(asking())
            assert rig.upstream.requests[0].headers["accept-encoding"] == "identity"
        assert result.generate.message.content == "héllo"


@pytest.mark.wire_case(14)
async def test_a_body_in_an_unknown_encoding_or_cut_inside_its_own_is_malformed() -> None:
    data = gzip.compress(json.dumps(completion({"content": "x"})).encode())
    for pieces, encoding in (([b"xyz"], "br"), ([b"xyz"], "gzip"), ([data[:-9]], "gzip")):
        answer = RawAnswer(pieces, 200, "application/json", {"content-encoding": encoding})
        async with serving(answer) as rig:
            with pytest.raises(Fault) as failed:
                await rig.whole(asking())
        assert failed.value.reason == "UPSTREAM_MALFORMED"


@pytest.mark.wire_case(15)
async def test_a_model_says_how_long_its_answers_may_be() -> None:
    answer = whole({"content": [{"type": "text", "text": "x"}], "stop_reason": "end_turn"})
    async with serving(answer, {"max_output_tokens": 64_000}, provider="anthropic") as rig:
        (model,) = rig.service.models()
        assert model.max_output_tokens == 64_000
        await rig.whole(asking())
        assert rig.sent["max_tokens"] == 64_000
