"""Requests of Anthropic's clients as tasks: what is kept, in which order, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.edge.anthropic_messages.request import ignored_fields, task_of
from penstock.edge.json_fields import parse_body
from penstock.edge.wire import BadRequest

MARK = {"type": "ephemeral"}
USER = {"role": "user", "content": "go"}
TOOL = {"name": "f", "description": "d", "input_schema": {"type": "object", "b": 1, "a": 2}}


def task(**fields: Any) -> pb.GenerateTask:
    """The task of a request of one user's turn; `fields` are further ones of the body."""
    return task_of({"model": "m", "max_tokens": 5000, "messages": [USER], **fields})


def turns(*messages: Any) -> list[pb.Message]:
    return list(task(messages=list(messages)).messages)


def refusal(**fields: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        task(**fields)
    return caught.value


def test_a_text_is_the_content_however_it_is_written() -> None:
    block = {"type": "text", "text": "go"}
    assert turns(USER) == turns({"role": "user", "content": [block]})


def test_system_is_the_first_turn_and_keeps_its_breakpoints() -> None:
    blocks = [
        {"type": "text", "text": "a"},
        {"type": "text", "text": "b", "cache_control": {**MARK, "ttl": "1h"}},
    ]
    system = task(system=blocks).messages[0]
    assert system.role == pb.ROLE_SYSTEM
    assert [(part.text, part.cache_breakpoint) for part in system.parts] == [
        ("a", False),
        ("b", True),
    ]


def test_breakpoints_of_tools_turns_and_the_whole_request_are_kept() -> None:
    marked = {"role": "user", "content": [{"type": "text", "text": "x", "cache_control": MARK}]}
    made = task(
        tools=[{**TOOL, "cache_control": MARK}],
        messages=[marked, {"role": "assistant", "content": "y"}, USER],
        cache_control=MARK,
    )
    assert made.tools[0].cache_breakpoint
    assert [turn.cache_breakpoint for turn in made.messages] == [True, False, True]


def test_a_system_turn_inside_the_conversation_stays_where_it_is() -> None:
    made = turns(USER, {"role": "system", "content": "now"}, USER)
    assert [turn.role for turn in made] == [pb.ROLE_USER, pb.ROLE_SYSTEM, pb.ROLE_USER]


def test_images_and_documents_are_parts_in_their_places() -> None:
    content = [
        {"type": "text", "text": "see"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
        {"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}},
        {
            "type": "document",
            "title": "t",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "aGk="},
        },
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "p"}},
    ]
    parts = turns({"role": "user", "content": content})[0].parts
    assert parts[0].text == "see"
    assert (parts[1].image.data, parts[1].image.media_type) == (b"hi", "image/png")
    assert parts[2].image.url == "https://x.test/a.png"
    assert (parts[3].file.data, parts[3].file.name) == (b"hi", "t")
    assert (parts[4].file.data, parts[4].file.media_type) == (b"p", "text/plain")


def test_results_of_tools_are_turns_with_lists_images_failures_and_breakpoints() -> None:
    image = {"type": "base64", "media_type": "image/png", "data": "aGk="}
    results = [
        {"type": "tool_result", "tool_use_id": "toolu_1", "content": "plain"},
        {
            "type": "tool_result",
            "tool_use_id": "toolu_2",
            "content": [{"type": "text", "text": "a"}, {"type": "image", "source": image}],
            "is_error": True,
            "cache_control": MARK,
        },
        {"type": "tool_result", "tool_use_id": "toolu_3"},
        {"type": "text", "text": "go on"},
    ]
    made = turns(USER, {"role": "user", "content": results})
    assert [turn.role for turn in made[1:]] == [pb.ROLE_TOOL] * 3 + [pb.ROLE_USER]
    assert (made[1].tool_call_id, made[1].content) == ("toolu_1", "plain")
    assert (made[2].is_error, made[2].cache_breakpoint) == (True, True)
    assert (made[2].parts[0].text, made[2].parts[1].image.data) == ("a", b"hi")
    assert made[3].content == ""
    assert made[4].content == "go on"


def test_thinking_goes_back_unmodified_and_in_order() -> None:
    content = [
        {"type": "thinking", "thinking": "", "signature": "one"},
        {"type": "redacted_thinking", "data": "two"},
        {"type": "text", "text": "said"},
        {"type": "thinking", "thinking": "hm", "signature": "three"},
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"b": 1, "a": 2}},
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}},
    ]
    turn = turns(USER, {"role": "assistant", "content": content})[1]
    assert [(each.format, each.text, each.position) for each in turn.reasoning] == [
        ("anthropic.thinking", "", 0),
        ("anthropic.redacted_thinking", "", 0),
        ("anthropic.thinking", "hm", 1),
        ("anthropic.block", "", 2),
    ]
    assert [each.state for each in turn.reasoning[:3]] == [b"one", b"two", b"three"]
    assert json.loads(turn.reasoning[3].state) == content[5]
    assert turn.content == "said"
    assert turn.tool_calls[0].arguments_json == '{"b":1,"a":2}'


def test_tools_keep_the_order_of_their_schemas_keys() -> None:
    tool = task(tools=[{**TOOL, "type": "custom", "strict": True}]).tools[0]
    assert tool.parameters_json == '{"type":"object","b":1,"a":2}'
    assert (tool.name, tool.description, tool.strict) == ("f", "d", True)


CHOICES = [
    ({"type": "auto"}, pb.TOOL_CHOICE_MODE_AUTO, []),
    ({"type": "any"}, pb.TOOL_CHOICE_MODE_REQUIRED, []),
    ({"type": "none"}, pb.TOOL_CHOICE_MODE_NONE, []),
    ({"type": "tool", "name": "f"}, pb.TOOL_CHOICE_MODE_REQUIRED, ["f"]),
]


@pytest.mark.parametrize(("choice", "mode", "functions"), CHOICES)
def test_the_choice_among_tools(choice: Any, mode: int, functions: list[str]) -> None:
    made = task(tools=[TOOL], tool_choice=choice)
    assert (made.tool_choice.mode, list(made.tool_choice.functions)) == (mode, functions)
    assert not made.HasField("parallel_tool_calls")


def test_parallel_calls_can_be_switched_off() -> None:
    made = task(tools=[TOOL], tool_choice={"type": "auto", "disable_parallel_tool_use": True})
    assert made.parallel_tool_calls is False
    assert made.HasField("parallel_tool_calls")


def test_options_of_sampling_and_stopping() -> None:
    made = task(temperature=0.5, top_p=0.25, top_k=7, stop_sequences=["END"])
    assert (made.max_tokens, made.temperature, made.top_p) == (5000, 0.5, 0.25)
    assert list(made.stop) == ["END"]
    assert json.loads(made.extra_json) == {"top_k": 7}


THINKING = [
    ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, ("", 2000)),
    ({"thinking": {"type": "adaptive"}}, ("high", 0)),
    ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}, ("low", 0)),
    ({"thinking": {"type": "disabled"}}, ("none", 0)),
    ({"output_config": {"effort": "max"}}, ("max", 0)),
]


@pytest.mark.parametrize(("fields", "expected"), THINKING)
def test_how_much_the_model_thinks(fields: Any, expected: tuple[str, int]) -> None:
    reasoning = task(**fields).reasoning
    assert (reasoning.effort, reasoning.max_tokens) == expected


def test_the_form_of_the_answer() -> None:
    form = task(output_config={"format": {"type": "json_schema", "schema": {"b": 1, "a": 2}}})
    assert form.response_format.kind == pb.RESPONSE_FORMAT_KIND_JSON_SCHEMA
    assert form.response_format.schema_json == '{"b":1,"a":2}'
    assert form.response_format.strict


def test_hints_and_unknown_fields_are_named() -> None:
    body = {
        "model": "m",
        "metadata": {"user_id": "u"},
        "service_tier": "auto",
        "new": 1,
        "speed": None,
    }
    assert ignored_fields(body) == ("metadata", "service_tier", "new")


def test_counting_tokens_needs_no_length() -> None:
    assert task_of({"messages": [USER]}, needs_length=False).max_tokens == 0


DOCUMENT = {"type": "document", "source": {"type": "text", "data": "x"}}
REFUSED = [
    ({"max_tokens": None}, "max_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": "5"}, "max_tokens"),
    ({"max_tokens": True}, "max_tokens"),
    ({"messages": None}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": {}}, "messages"),
    ({"messages": ["go"]}, "messages[0]"),
    ({"messages": [{"content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": ""}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content[0].type"),
    (
        {"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]},
        "messages[0].content[0].tool_use_id",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "container_upload"}]}]},
        "messages[0].content[0].type",
    ),
    (
        {"messages": [{"role": "user", "content": [{**DOCUMENT, "citations": {"enabled": True}}]}]},
        "messages[0].content[0].citations",
    ),
    ({"system": 3}, "system"),
    ({"temperature": 1.5}, "temperature"),
    ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
    ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
    ({"tool_choice": {"type": "tool", "name": "g"}}, "tool_choice.name"),
    ({"tool_choice": {"type": "some"}}, "tool_choice.type"),
    ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
    ({"thinking": {"type": "enabled", "budget_tokens": 5000}}, "thinking.budget_tokens"),
    ({"thinking": {"type": "between_tools"}}, "thinking.type"),
    ({"output_config": {"effort": "huge"}}, "output_config.effort"),
    ({"cache_control": {"type": "forever"}}, "cache_control.type"),
    ({"stop_sequences": [1]}, "stop_sequences[0]"),
    ({"container": "c"}, "container"),
    ({"mcp_servers": [{"url": "https://x.test"}]}, "mcp_servers"),
]


@pytest.mark.parametrize(("fields", "param"), REFUSED, ids=lambda value: str(value)[:60])
def test_what_is_wrong_or_cannot_be_honoured_is_refused_by_its_name(
    fields: Any, param: str
) -> None:
    refused = refusal(**fields)
    assert refused.param == param
    assert str(refused)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"3", b'{"a":"\xff"}', b'{"a":"\\ud800"}'])
def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        parse_body(body)
