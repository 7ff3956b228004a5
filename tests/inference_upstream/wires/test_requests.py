"""What leaves for a provider: parts, tools, choices, breakpoints, thinking, addresses, keys."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_upstream.adapters import target_of, wire_of
from penstock.inference_upstream.settings import Upstream
from penstock.rpc.errors import Fault
from penstock.tasks.kinds import GENERATE
from penstock.testkit.raw_upstream import RawAnswer, RawRequest, RawUpstream, whole
from pydantic import ValidationError

from ..rig import asking, serving

PNG = b"\x89PNG"
IMAGE = {"inputs": ["text", "image"]}
EVERYTHING = {"inputs": ["text", "image", "file"]}
LONG = "x" * 20_000
AUTO, NONE, REQUIRED = (
    pb.TOOL_CHOICE_MODE_AUTO,
    pb.TOOL_CHOICE_MODE_NONE,
    pb.TOOL_CHOICE_MODE_REQUIRED,
)


def body_of(
    task: pb.GenerateTask,
    model: dict[str, Any] | None = None,
    provider: str = "openai",
    **server: Any,
) -> dict[str, Any]:
    """The body of a whole request, for a provider of the table."""
    section = {
        "name": "up",
        "base_url": "http://x",
        "provider": provider,
        "models": [{"name": "m", **(model or {})}],
        **server,
    }
    upstream = Upstream.model_validate(section)
    return wire_of(upstream).request(task, target_of(upstream, upstream.models[0]), stream=False)


def with_parts(*parts: pb.ContentPart) -> pb.GenerateTask:
    return pb.GenerateTask(messages=[pb.Message(role=pb.ROLE_USER, parts=parts)])


def with_tools(*names: str, **fields: Any) -> pb.GenerateTask:
    task = asking(**fields)
    for name in names:
        task.tools.add(name=name)
    return task


PARTS = with_parts(
    pb.ContentPart(text="what is this?"),
    pb.ContentPart(image=pb.Image(data=PNG, media_type="image/png", detail="low")),
    pb.ContentPart(image=pb.Image(url="https://x.test/a.jpg")),
    pb.ContentPart(file=pb.File(data=b"%PDF", media_type="application/pdf", name="a.pdf")),
)


def test_images_and_files_have_the_form_of_each_wire() -> None:
    png, pdf = base64.b64encode(PNG).decode(), base64.b64encode(b"%PDF").decode()
    assert body_of(PARTS, EVERYTHING)["messages"][0]["content"] == [
        {"type": "text", "text": "what is this?"},
        {
            "type": "image_url",
            "image_url": {"url": f"data:image/png;base64,{png}", "detail": "low"},
        },
        {"type": "image_url", "image_url": {"url": "https://x.test/a.jpg"}},
        {
            "type": "file",
            "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{pdf}"},
        },
    ]
    assert body_of(PARTS, EVERYTHING, "anthropic")["messages"][0]["content"] == [
        {"type": "text", "text": "what is this?"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": png}},
        {"type": "image", "source": {"type": "url", "url": "https://x.test/a.jpg"}},
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": pdf},
            "title": "a.pdf",
        },
    ]


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
@pytest.mark.parametrize(
    ("model", "field"),
    [({}, "parts[1].image"), (IMAGE, "parts[3].file")],
)
def test_a_model_refuses_by_field_what_it_does_not_take(
    provider: str, model: dict[str, Any], field: str
) -> None:
    with pytest.raises(Fault) as refused:
        body_of(PARTS, model, provider)
    assert refused.value.field == f"task.generate.messages[0].{field}"


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (pb.Message(role=pb.ROLE_USER, content="x", parts=[pb.ContentPart(text="y")]), "parts"),
        (pb.Message(role=pb.ROLE_USER, parts=[pb.ContentPart()]), "parts[0]"),
        (
            pb.Message(role=pb.ROLE_USER, parts=[pb.ContentPart(image=pb.Image())]),
            "parts[0].image",
        ),
        (
            pb.Message(
                role=pb.ROLE_USER, parts=[pb.ContentPart(image=pb.Image(url="file:///etc/passwd"))]
            ),
            "parts[0].image.url",
        ),
        (
            pb.Message(role=pb.ROLE_USER, parts=[pb.ContentPart(image=pb.Image(data=PNG))]),
            "parts[0].image.media_type",
        ),
    ],
)
def test_parts_that_say_nothing_are_refused_by_field(message: pb.Message, field: str) -> None:
    task = pb.Task(generate=pb.GenerateTask(messages=[message]))
    with pytest.raises(Fault) as refused:
        GENERATE.validate(task, "")
    assert refused.value.field == f"messages[0].{field}"


@pytest.mark.parametrize(
    ("choice", "openai", "anthropic"),
    [
        (pb.ToolChoice(mode=AUTO), "auto", {"type": "auto"}),
        (pb.ToolChoice(mode=NONE), "none", {"type": "none"}),
        (pb.ToolChoice(mode=REQUIRED), "required", {"type": "any"}),
        (
            pb.ToolChoice(mode=REQUIRED, functions=["auto"]),
            {"type": "function", "function": {"name": "auto"}},
            {"type": "tool", "name": "auto"},
        ),
        (
            pb.ToolChoice(mode=REQUIRED, functions=["auto", "none"]),
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "required",
                    "tools": [
                        {"type": "function", "function": {"name": "auto"}},
                        {"type": "function", "function": {"name": "none"}},
                    ],
                },
            },
            {"type": "any"},
        ),
    ],
)
def test_a_choice_cannot_be_taken_for_the_name_of_a_function(
    choice: pb.ToolChoice, openai: object, anthropic: object
) -> None:
    task = with_tools("auto", "none", "required", tool_choice=choice)
    assert body_of(task)["tool_choice"] == openai
    assert body_of(task, None, "anthropic")["tool_choice"] == anthropic


def test_where_a_choice_among_some_tools_cannot_be_said_only_these_are_sent() -> None:
    choice = pb.ToolChoice(mode=REQUIRED, functions=["a", "c"])
    task = with_tools("a", "b", "c", tool_choice=choice)
    sent = body_of(task, None, "vllm")
    assert [tool["function"]["name"] for tool in sent["tools"]] == ["a", "c"]
    assert sent["tool_choice"] == "required"
    sent = body_of(task, None, "anthropic")
    assert [tool["name"] for tool in sent["tools"]] == ["a", "c"]


def test_a_choice_of_a_tool_that_is_not_there_is_refused() -> None:
    task = with_tools("a", tool_choice=pb.ToolChoice(functions=["b"]))
    with pytest.raises(Fault) as refused:
        GENERATE.validate(pb.Task(generate=task), "task.")
    assert refused.value.field == "task.tool_choice.functions[0]"


def test_parallel_calls_are_switched_off_on_both_wires() -> None:
    task = with_tools("a", parallel_tool_calls=False)
    assert body_of(task)["parallel_tool_calls"] is False
    sent = body_of(task, None, "anthropic")
    assert sent["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}


def test_an_anthropic_conversation_has_system_blocks_and_results_first() -> None:
    task = with_tools("find", stop=["END"], max_tokens=100, temperature=0.7)
    del task.messages[:]
    for role, text in ((pb.ROLE_SYSTEM, "Be kind."), (pb.ROLE_SYSTEM, "Be brief.")):
        task.messages.add(role=role, content=text)
    task.messages.add(role=pb.ROLE_USER, content="go")
    asked = task.messages.add(role=pb.ROLE_ASSISTANT, content="I look.")
    for name in ("t1", "t2"):
        asked.tool_calls.add(id=name, name="find", arguments_json='{"q": 1}')
    task.messages.add(role=pb.ROLE_USER, content="hurry")
    task.messages.add(role=pb.ROLE_TOOL, tool_call_id="t1", content="one")
    task.messages.add(role=pb.ROLE_TOOL, tool_call_id="t2", content="broken", is_error=True)
    sent = body_of(task, None, "anthropic")
    assert sent["system"] == [
        {"type": "text", "text": "Be kind."},
        {"type": "text", "text": "Be brief."},
    ]
    assert [turn["role"] for turn in sent["messages"]] == ["user", "assistant", "user"]
    assert sent["messages"][2]["content"] == [
        {"type": "tool_result", "tool_use_id": "t1", "content": "one"},
        {"type": "tool_result", "tool_use_id": "t2", "content": "broken", "is_error": True},
        {"type": "text", "text": "hurry"},
    ]
    assert (sent["stop_sequences"], sent["max_tokens"], sent["temperature"]) == (["END"], 100, 0.7)
    assert sent["tools"] == [{"name": "find", "input_schema": {"type": "object"}}]


def marked(value: Any) -> int:
    """Cache breakpoints anywhere in a body."""
    if isinstance(value, list):
        return sum(map(marked, value))
    if not isinstance(value, dict):
        return 0
    return ("cache_control" in value) + sum(map(marked, value.values()))


def test_at_most_four_breakpoints_are_sent_the_first_and_the_last_ones() -> None:
    task = with_tools("find")
    task.tools[0].description, task.tools[0].cache_breakpoint = LONG, True
    for number in range(6):
        role = pb.ROLE_ASSISTANT if number % 2 == 0 else pb.ROLE_USER
        task.messages.add(role=role, content=str(number), cache_breakpoint=True)
    sent = body_of(task, None, "anthropic")
    assert marked(sent) == 4
    assert "cache_control" in sent["tools"][0]
    assert [marked(turn) for turn in sent["messages"]] == [0, 0, 0, 0, 1, 1, 1]
    assert marked(body_of(task, None, "anthropic", switches={"max_breakpoints": 0})) == 0


def test_a_prefix_that_is_too_short_for_the_models_cache_uses_no_breakpoint_up() -> None:
    task = asking("x" * 5_000)
    task.messages[0].cache_breakpoint = True
    for model, count in (("claude-opus-4-5", 0), ("claude-sonnet-4-5", 1), ("claude-next", 1)):
        assert marked(body_of(task, {"upstream_name": model}, "anthropic")) == count


def test_a_part_may_be_followed_by_a_breakpoint() -> None:
    task = with_parts(pb.ContentPart(text=LONG, cache_breakpoint=True), pb.ContentPart(text="now"))
    for provider in ("anthropic", "openrouter"):
        first, second = body_of(task, None, provider)["messages"][0]["content"]
        assert first["cache_control"] == {"type": "ephemeral"}
        assert "cache_control" not in second


@pytest.mark.parametrize(
    ("asked", "switches", "sent"),
    [
        (
            {"effort": "high"},
            {},
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}},
        ),
        ({"max_tokens": 2000}, {}, {"thinking": {"type": "enabled", "budget_tokens": 2000}}),
        (
            {"effort": "low"},
            {"reasoning": "budget"},
            {"thinking": {"type": "enabled", "budget_tokens": 2048}},
        ),
        ({"effort": "none"}, {}, {}),
        ({"effort": "high"}, {"reasoning": "none"}, {}),
        ({}, {}, {}),
    ],
)
def test_thinking_is_asked_for_as_the_model_takes_it(
    asked: dict[str, Any], switches: dict[str, Any], sent: dict[str, Any]
) -> None:
    task = asking(reasoning=pb.ReasoningOptions(**asked), max_tokens=8000, temperature=0.5)
    body = body_of(task, None, "anthropic", switches=switches)
    told = {name: body[name] for name in ("thinking", "output_config") if name in body}
    assert told == sent
    assert ("temperature" in body) == (not sent)


def test_a_budget_that_leaves_no_room_for_the_answer_is_refused() -> None:
    task = asking(reasoning=pb.ReasoningOptions(max_tokens=5000), max_tokens=4000)
    with pytest.raises(Fault) as refused:
        body_of(task, None, "anthropic")
    assert refused.value.field == "task.generate.reasoning.max_tokens"


@pytest.mark.parametrize(
    ("provider", "sent"),
    [
        ("openai", {"reasoning_effort": "high"}),
        ("openrouter", {"reasoning": {"effort": "high", "max_tokens": 900}}),
        ("mistral", {}),
    ],
)
def test_reasoning_is_asked_for_as_each_server_takes_it(
    provider: str, sent: dict[str, Any]
) -> None:
    task = asking(reasoning=pb.ReasoningOptions(effort="high", max_tokens=900))
    body = body_of(task, None, provider)
    assert {name: body[name] for name in ("reasoning_effort", "reasoning") if name in body} == sent


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"extra_json": "[1]"}, "task.generate.extra_json"),
        ({"top_logprobs": 3}, "task.generate.top_logprobs"),
        (
            {"response_format": pb.ResponseFormat(kind=pb.RESPONSE_FORMAT_KIND_JSON_OBJECT)},
            "task.generate.response_format.kind",
        ),
    ],
)
def test_what_the_anthropic_wire_does_not_have_is_refused_by_field(
    fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(Fault) as refused:
        body_of(asking(**fields), None, "anthropic")
    assert refused.value.field == field


@pytest.mark.threat("forged opaque state of a provider")
@pytest.mark.parametrize(
    "spoil",
    [
        lambda turn: turn.reasoning.add(state=b"\xff", format="anthropic.thinking"),
        lambda turn: turn.reasoning.add(state=b"{", format="anthropic.block"),
        lambda turn: turn.tool_calls.add(id="a", name="f", arguments_json="[1]"),
    ],
)
def test_opaque_state_that_a_caller_has_altered_is_refused_by_field(
    spoil: Callable[[pb.Message], object],
) -> None:
    task = asking()
    spoil(task.messages.add(role=pb.ROLE_ASSISTANT, content="x"))
    with pytest.raises(Fault) as refused:
        body_of(task, None, "anthropic")
    assert refused.value.field.startswith("task.generate.messages[1].")
    assert refused.value.code.name == "INVALID_ARGUMENT"


def test_logprobs_and_schemas_are_asked_for() -> None:
    form = pb.ResponseFormat(
        kind=pb.RESPONSE_FORMAT_KIND_JSON_SCHEMA,
        schema_json='{"type": "object"}',
        name="city",
        description="A city.",
    )
    sent = body_of(asking(top_logprobs=3, response_format=form))
    assert (sent["logprobs"], sent["top_logprobs"]) == (True, 3)
    assert sent["response_format"]["json_schema"] == {
        "name": "city",
        "description": "A city.",
        "schema": {"type": "object"},
    }
    sent = body_of(asking(response_format=form), None, "anthropic")
    assert sent["output_config"] == {
        "format": {"type": "json_schema", "schema": {"type": "object"}}
    }


@pytest.mark.parametrize(
    ("base_url", "provider"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://res.openai.azure.com/openai/v1", "azure"),
        ("https://api.anthropic.com/v1", "anthropic"),
        ("https://generativelanguage.googleapis.com/v1beta/openai", "gemini"),
        ("https://bedrock-runtime.eu-west-1.amazonaws.com/openai/v1", "bedrock"),
        ("https://notopenrouter.ai/v1", "other"),
        ("http://127.0.0.1:8000/v1", "other"),
    ],
)
def test_a_provider_is_known_by_its_address(base_url: str, provider: str) -> None:
    section = {"name": "up", "base_url": base_url, "models": [{"name": "m"}]}
    assert Upstream.model_validate(section).known_provider.name == provider


def test_a_models_switches_go_before_its_upstreams_and_these_before_the_providers() -> None:
    models = [{"name": "a", "switches": {"temperature": False}}, {"name": "b"}]
    upstream = Upstream.model_validate(
        {
            "name": "up",
            "base_url": "https://api.mistral.ai/v1",
            "switches": {"temperature": True, "stream_usage": True},
            "models": models,
        }
    )
    first, second = (upstream.switches_of(model) for model in upstream.models)
    assert (first.temperature, second.temperature) == (False, True)
    assert second.stream_usage
    assert second.length_parameter == "max_tokens"


@pytest.mark.parametrize(
    "wrong", [{"provider": "nobody"}, {"proxy": "proxy:1"}, {"switches": {"unknown": 1}}]
)
def test_a_wrong_section_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Upstream.model_validate(
            {"name": "up", "base_url": "http://x", "models": [{"name": "m"}], **wrong}
        )


ANTHROPIC_ANSWER = whole({"content": [{"type": "text", "text": "x"}], "stop_reason": "end_turn"})
OPENAI_ANSWER = whole({"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]})


@pytest.mark.parametrize(
    ("server", "answer", "target", "headers"),
    [
        (
            {"provider": "azure", "query": {"api-version": "2026-06-01"}},
            OPENAI_ANSWER,
            "/v1/chat/completions?api-version=2026-06-01",
            {"api-key": "k-1"},
        ),
        (
            {"provider": "anthropic", "headers": {"anthropic-beta": "a,b"}},
            ANTHROPIC_ANSWER,
            "/v1/messages",
            {"x-api-key": "k-1", "anthropic-version": "2023-06-01", "anthropic-beta": "a,b"},
        ),
        (
            {"wire": "anthropic-messages", "paths": {"generate": "/anthropic/messages"}},
            ANTHROPIC_ANSWER,
            "/v1/anthropic/messages",
            {"authorization": "Bearer k-1"},
        ),
        (
            {"auth": "x-api-key", "headers": {"X-Team": "red"}},
            OPENAI_ANSWER,
            "/v1/chat/completions",
            {"x-api-key": "k-1", "x-team": "red"},
        ),
    ],
)
async def test_address_and_key_are_as_each_provider_wants_them(
    monkeypatch: pytest.MonkeyPatch,
    server: dict[str, Any],
    answer: RawAnswer,
    target: str,
    headers: dict[str, str],
) -> None:
    monkeypatch.setenv("UP_KEY", "k-1")
    async with serving(answer, key_env="UP_KEY", **server) as rig:
        await rig.whole(asking())
        (request,) = rig.upstream.requests
    assert request.target == target
    assert {name: request.headers.get(name) for name in headers} == headers
    assert ("authorization" in request.headers) == ("authorization" in headers)


async def test_the_models_name_may_stand_in_the_address() -> None:
    async with RawUpstream(lambda _: OPENAI_ANSWER) as deployments:
        base_url = f"{deployments.url}/deployments/{{model}}"
        async with serving(OPENAI_ANSWER, base_url=base_url) as rig:
            await rig.whole(asking())
        (request,) = deployments.requests
    assert request.target == "/v1/deployments/model-x/chat/completions"


async def test_an_upstream_is_reached_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROXY_AUTH", "user:pass word")

    def forward(request: RawRequest) -> RawAnswer:
        return OPENAI_ANSWER

    async with RawUpstream(forward) as proxy:
        address = {"base_url": "http://model.example/v1", "proxy": proxy.url.removesuffix("/v1")}
        async with serving(OPENAI_ANSWER, proxy_auth_env="PROXY_AUTH", **address) as rig:
            assert (await rig.whole(asking())).generate.message.content == "x"
            assert not rig.upstream.requests
        (request,) = proxy.requests
    assert request.target == "http://model.example/v1/chat/completions"
    told = base64.b64encode(b"user:pass word").decode()
    assert request.headers["proxy-authorization"] == f"Basic {told}"
