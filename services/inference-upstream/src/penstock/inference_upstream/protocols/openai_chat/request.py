"""The request of a chat completion. Pure: a task in, a body out."""

from __future__ import annotations

from typing import Any

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_upstream.protocols.openai_chat.turns import turns
from penstock.inference_upstream.protocols.request_fields import (
    check_modalities,
    chosen_tools,
    extra_fields,
    finished,
    parse_json_field,
)
from penstock.inference_upstream.protocols.shortest import shortest
from penstock.inference_upstream.protocols.wire import Target
from penstock.inference_upstream.switches import Switches
from penstock.rpc.errors import invalid
from penstock.service.purity import pure

MODES = {
    pb.TOOL_CHOICE_MODE_UNSPECIFIED: "auto",
    pb.TOOL_CHOICE_MODE_AUTO: "auto",
    pb.TOOL_CHOICE_MODE_NONE: "none",
    pb.TOOL_CHOICE_MODE_REQUIRED: "required",
}
OUR_FIELDS = frozenset(
    {
        "model",
        "messages",
        "stream_options",
        "tools",
        "tool_choice",
        "functions",
        "function_call",
        "parallel_tool_calls",
        "response_format",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "seed",
        "stop",
        "reasoning_effort",
        "reasoning",
        "logprobs",
        "top_logprobs",
        "continue_final_message",
        "add_generation_prompt",
    }
)
"""Body fields that the fields of a task say."""
ANSWER_SCHEMA = "answer"
"""The name of a schema that has none."""


@pure
def chat_request(task: pb.GenerateTask, target: Target, *, stream: bool) -> dict[str, Any]:
    """The body of `POST /chat/completions`.

    Raises:
        Fault: INVALID_ARGUMENT naming a field that the model does not take, or that should be JSON
            and is not.
    """
    check_modalities(task, target)
    switches = target.switches
    body: dict[str, Any] = {
        "model": target.model,
        "messages": turns(task, switches),
        "stream": stream,
    }
    if target.resumes and task.messages and task.messages[-1].role == pb.ROLE_ASSISTANT:
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    if stream and switches.stream_usage:
        body["stream_options"] = {"include_usage": True}
    body |= _tools(task, switches)
    body |= _response_format(task.response_format, switches)
    if task.max_tokens:
        body[switches.length_parameter] = task.max_tokens
    body |= _sampling(task, switches)
    body |= _reasoning(task.reasoning, switches)
    body |= extra_fields(task, OUR_FIELDS)
    return finished(body, target)


def _sampling(task: pb.GenerateTask, switches: Switches) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if switches.temperature:
        for name in ("temperature", "top_p"):
            if task.HasField(name):
                fields[name] = shortest(getattr(task, name))
    if task.HasField("seed"):
        fields["seed"] = task.seed
    if task.stop:
        fields["stop"] = list(task.stop)
    if task.HasField("top_logprobs"):
        fields["logprobs"] = True
        if task.top_logprobs:
            fields["top_logprobs"] = task.top_logprobs
    return fields


def _reasoning(asked: pb.ReasoningOptions, switches: Switches) -> dict[str, Any]:
    if switches.reasoning == "reasoning_effort":
        return {"reasoning_effort": asked.effort} if asked.effort else {}
    if switches.reasoning == "reasoning":
        said = {"effort": asked.effort, "max_tokens": asked.max_tokens}
        told = {name: value for name, value in said.items() if value}
        return {"reasoning": told} if told else {}
    return {}


def _tools(task: pb.GenerateTask, switches: Switches) -> dict[str, Any]:
    """The tools, and which of them the model may or must call."""
    if not task.tools:
        return {}
    choice = task.tool_choice
    narrows = len(choice.functions) > 1 and not switches.allowed_tools
    tools = chosen_tools(task) if narrows else list(task.tools)
    fields: dict[str, Any] = {"tools": [_tool(tool, switches) for tool in tools]}
    if task.HasField("tool_choice"):
        fields["tool_choice"] = _tool_choice(choice, switches)
    if task.HasField("parallel_tool_calls") and switches.parallel_tools:
        fields["parallel_tool_calls"] = task.parallel_tool_calls
    return fields


def _tool(tool: pb.Tool, switches: Switches) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "description": tool.description}
    if tool.parameters_json:
        field = f"task.tools[{tool.name}].parameters_json"
        function["parameters"] = parse_json_field(field, tool.parameters_json)
    if tool.HasField("strict") and switches.strict_schemas:
        function["strict"] = tool.strict
    made: dict[str, Any] = {"type": "function", "function": function}
    if tool.cache_breakpoint and switches.breakpoints == "cache_control":
        made["cache_control"] = {"type": "ephemeral"}
    return made


def _tool_choice(choice: pb.ToolChoice, switches: Switches) -> object:
    mode = MODES[choice.mode]
    names = [_function(name) for name in choice.functions]
    if not names or choice.mode == pb.TOOL_CHOICE_MODE_NONE:
        return mode
    if len(names) == 1 and choice.mode in (
        pb.TOOL_CHOICE_MODE_UNSPECIFIED,
        pb.TOOL_CHOICE_MODE_REQUIRED,
    ):
        return names[0]
    if not switches.allowed_tools:
        return mode
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": names}}


def _function(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def _response_format(asked: pb.ResponseFormat, switches: Switches) -> dict[str, Any]:
    if asked.kind == pb.RESPONSE_FORMAT_KIND_JSON_OBJECT:
        if not switches.json_object:
            field = "task.generate.response_format.kind"
            raise invalid(field, "is not taken by this upstream; give a schema")
        return {"response_format": {"type": "json_object"}}
    if asked.kind != pb.RESPONSE_FORMAT_KIND_JSON_SCHEMA:
        return {}
    field = "task.response_format.schema_json"
    schema: dict[str, Any] = {
        "name": asked.name or ANSWER_SCHEMA,
        "schema": parse_json_field(field, asked.schema_json),
    }
    if asked.description:
        schema["description"] = asked.description
    if asked.strict and switches.strict_schemas:
        schema["strict"] = True
    return {"response_format": {"type": "json_schema", "json_schema": schema}}
