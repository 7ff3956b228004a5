"""Requests of OpenAI's Responses as tasks: what is kept, in which order, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.edge.answer_blocks.blocks import ReasoningBlock
from penstock.edge.answer_blocks.opaque import packed
from penstock.edge.openai_responses.request import (
    Context,
    References,
    ignored_fields,
    is_stored,
    references,
    task_of,
)
from penstock.edge.openai_responses.response import head_of
from penstock.edge.wire import BadRequest

TOOL = {"type": "function", "name": "f", "parameters": {"type": "object", "b": 1, "a": 2}}
CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a": 1}'}
STATE = packed(ReasoningBlock("hm", b"s", "x"), with_text=True)
THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": STATE}


def task(context: Context = Context(), **fields: Any) -> pb.GenerateTask:  # noqa: B008  # immutable
    """The task of a request; `fields` are further ones of the body."""
    return task_of({"model": "m", "input": "go", **fields}, context)


def said(text: str, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": text}


def refusal(context: Context = Context(), **fields: Any) -> BadRequest:  # noqa: B008  # immutable
    with pytest.raises(BadRequest) as caught:
        task(context, **fields)
    return caught.value


def test_a_text_is_a_users_message() -> None:
    parts = [{"type": "input_text", "text": "go"}]
    long_form = [{"type": "message", "role": "user", "content": parts}]
    assert task() == task(input=[said("go")]) == task(input=long_form)


def test_instructions_come_first_and_developers_are_the_system() -> None:
    messages = task(
        instructions="be brief", input=[said("and kind", "developer"), said("go")]
    ).messages
    assert [(turn.role, turn.content) for turn in messages] == [
        (pb.ROLE_SYSTEM, "be brief"),
        (pb.ROLE_SYSTEM, "and kind"),
        (pb.ROLE_USER, "go"),
    ]


def test_what_an_answer_was_made_of_becomes_one_turn() -> None:
    output = {"type": "function_call_output", "call_id": "c1", "output": "42"}
    text = {"type": "output_text", "text": "let me see", "annotations": []}
    spoken = {"type": "message", "role": "assistant", "content": [text], "id": "msg_1"}
    items = [said("go"), THOUGHT, spoken, CALL, {**CALL, "call_id": "c2"}, output]
    user, assistant, tool = task(input=items).messages
    assert user.content == "go"
    assert assistant.content == "let me see"
    assert [call.id for call in assistant.tool_calls] == ["c1", "c2"]
    assert assistant.tool_calls[0].arguments_json == '{"a": 1}'
    (thought,) = assistant.reasoning
    assert (thought.text, thought.state, thought.format) == ("hm", b"s", "x")
    assert thought.position == 0
    assert (tool.role, tool.tool_call_id, tool.content) == (pb.ROLE_TOOL, "c1", "42")


def test_reasoning_keeps_its_place_among_calls() -> None:
    items = [said("go"), CALL, THOUGHT, {**CALL, "call_id": "c2"}]
    assert task(input=items).messages[1].reasoning[0].position == 1


def test_reasoning_without_its_state_is_left_out() -> None:
    bare = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}
    assert task(input=[said("go"), bare, said("ok", "assistant")]) == task(
        input=[said("go"), said("ok", "assistant")]
    )


def test_images_and_files_are_parts() -> None:
    content = [
        {"type": "input_text", "text": "see", "prompt_cache_breakpoint": {"mode": "explicit"}},
        {"type": "input_image", "image_url": "data:image/png;base64,aGk=", "detail": "low"},
        {"type": "input_image", "image_url": "https://x.test/a.png", "detail": "auto"},
        {"type": "input_file", "file_data": "data:application/pdf;base64,aGk=", "filename": "f"},
        {"type": "input_file", "file_url": "https://x.test/a.pdf"},
        {"type": "input_file", "file_id": "file_1"},
    ]
    parts = task(input=[{"role": "user", "content": content}]).messages[0].parts
    assert (parts[0].text, parts[0].cache_breakpoint) == ("see", True)
    assert (parts[1].image.data, parts[1].image.media_type) == (b"hi", "image/png")
    assert parts[1].image.detail == "low"
    assert parts[2].image.url == "https://x.test/a.png"
    assert (parts[3].file.data, parts[3].file.name) == (b"hi", "f")
    assert parts[4].file.url == "https://x.test/a.pdf"
    assert parts[5].file.file_id == "file_1"


def test_the_output_of_a_function_may_be_parts() -> None:
    content = [
        {"type": "input_text", "text": "a"},
        {"type": "input_image", "image_url": "https://x.test/a.png"},
    ]
    output = {"type": "function_call_output", "call_id": "c1", "output": content}
    tool = task(input=[said("go"), CALL, output]).messages[2]
    assert [part.WhichOneof("part") for part in tool.parts] == ["text", "image"]


def test_tools_are_flat_and_keep_the_order_of_their_schemas_keys() -> None:
    made = task(tools=[{**TOOL, "description": "d", "strict": False}], parallel_tool_calls=False)
    assert made.tools[0].parameters_json == '{"type":"object","b":1,"a":2}'
    assert (made.tools[0].description, made.tools[0].strict) == ("d", False)
    assert made.HasField("parallel_tool_calls")


CHOICES = [
    ("auto", pb.TOOL_CHOICE_MODE_AUTO, []),
    ("none", pb.TOOL_CHOICE_MODE_NONE, []),
    ("required", pb.TOOL_CHOICE_MODE_REQUIRED, []),
    ({"type": "function", "name": "f"}, pb.TOOL_CHOICE_MODE_REQUIRED, ["f"]),
    (
        {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
        pb.TOOL_CHOICE_MODE_AUTO,
        ["f"],
    ),
]


@pytest.mark.parametrize(("choice", "mode", "functions"), CHOICES)
def test_the_choice_among_tools(choice: Any, mode: int, functions: list[str]) -> None:
    made = task(tools=[TOOL], tool_choice=choice).tool_choice
    assert (made.mode, list(made.functions)) == (mode, functions)


def test_options_of_the_answer() -> None:
    form = {"type": "json_schema", "name": "n", "schema": {"b": 1, "a": 2}, "strict": True}
    made = task(
        max_output_tokens=7,
        temperature=0.5,
        top_p=0.25,
        reasoning={"effort": "low", "summary": "auto"},
        text={"format": form, "verbosity": "low"},
    )
    assert (made.max_tokens, made.temperature, made.top_p) == (7, 0.5, 0.25)
    assert made.reasoning.effort == "low"
    assert made.response_format.schema_json == '{"b":1,"a":2}'
    assert (made.response_format.name, made.response_format.strict) == ("n", True)


def test_what_a_request_refers_to() -> None:
    items = [
        {"type": "item_reference", "id": "msg_1"},
        {"id": "msg_2"},
        {"type": "reasoning", "id": "rs_1"},
    ]
    asked = {"input": items, "previous_response_id": "resp_1"}
    assert references(asked) == References("resp_1", ("msg_1", "msg_2"), ("rs_1",))


def test_references_are_replaced_by_what_is_kept() -> None:
    kept = {"msg_1": said("kept", "assistant"), "rs_1": THOUGHT}
    context = Context([said("before")], kept)
    items = [{"type": "reasoning", "id": "rs_1", "summary": []}, {"id": "msg_1"}, said("go")]
    before, assistant, user = task(context, input=items, previous_response_id="resp_1").messages
    assert (before.content, assistant.content, user.content) == ("before", "kept", "go")
    assert assistant.reasoning[0].state == b"s"


def test_a_reference_to_what_is_not_kept_is_refused_by_its_place() -> None:
    refused = refusal(input=[said("go"), {"type": "item_reference", "id": "msg_9"}])
    assert refused.param == "input[1].id"
    assert "store: false" in refused.message


def test_hints_and_unknown_fields_are_named() -> None:
    body = {"model": "m", "user": "u", "service_tier": "auto", "truncation": "auto", "new": 1}
    assert ignored_fields(body) == ("user", "service_tier", "new", "truncation")


def test_responses_are_stored_unless_the_caller_says_no() -> None:
    assert [is_stored(body) for body in ({}, {"store": None}, {"store": True})] == [True] * 3
    assert not is_stored({"store": False})


def test_a_response_shows_what_was_asked() -> None:
    body = {
        "tools": [TOOL],
        "tool_choice": "required",
        "temperature": 0.5,
        "text": {"verbosity": "low"},
    }
    shown = head_of({**body, "metadata": {"k": "v"}}, "resp_1", 1, "m").shown_again
    assert (shown["tools"], shown["tool_choice"], shown["temperature"]) == ([TOOL], "required", 0.5)
    assert shown["text"] == {"format": {"type": "text"}, "verbosity": "low"}
    assert shown["metadata"] == {"k": "v"}
    assert shown["parallel_tool_calls"] is True


REFUSED = [
    ({"input": None}, "input"),
    ({"input": []}, "input"),
    ({"input": 3}, "input"),
    ({"input": [3]}, "input[0]"),
    ({"input": [{}]}, "input[0].type"),
    ({"input": [{"type": "web_search_call", "id": "x"}]}, "input[0].type"),
    ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
    ({"input": [{"role": "user"}]}, "input[0].content"),
    ({"input": [{"role": "user", "content": ""}]}, "input[0].content"),
    (
        {"input": [{"role": "user", "content": [{"type": "input_audio"}]}]},
        "input[0].content[0].type",
    ),
    (
        {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
        "input[0].content[0].file_id",
    ),
    ({"input": [{"type": "function_call", "name": "f"}]}, "input[0].call_id"),
    ({"input": [{"type": "function_call_output", "call_id": "c"}]}, "input[0].output"),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    ({"tools": [{"type": "function"}]}, "tools[0].name"),
    ({"tool_choice": "some"}, "tool_choice"),
    ({"tool_choice": {"type": "function", "name": "g"}}, "tool_choice"),
    ({"tool_choice": {"type": "file_search"}}, "tool_choice.type"),
    ({"max_output_tokens": 0}, "max_output_tokens"),
    ({"temperature": 3}, "temperature"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"reasoning": {"effort": "huge"}}, "reasoning.effort"),
    ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
    ({"text": {"format": {"type": "grammar"}}}, "text.format.type"),
    ({"truncation": "some"}, "truncation"),
    ({"background": True}, "background"),
    ({"conversation": "conv_1"}, "conversation"),
    ({"prompt": {"id": "p"}}, "prompt"),
]


@pytest.mark.parametrize(("fields", "param"), REFUSED, ids=lambda value: str(value)[:60])
def test_what_is_wrong_or_cannot_be_honoured_is_refused_by_its_name(
    fields: Any, param: str
) -> None:
    assert refusal(**fields).param == param


WRONG_HEADS = [
    ({"metadata": {"k": 1}}, "metadata.k"),
    ({"store": "yes"}, "store"),
    ({"include": ["message.output_text.logprobs"]}, "include"),
]


@pytest.mark.parametrize(("fields", "param"), WRONG_HEADS)
def test_what_is_only_shown_again_is_checked_too(fields: Any, param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        head_of(fields, "resp_1", 1, "m")
    assert caught.value.param == param
