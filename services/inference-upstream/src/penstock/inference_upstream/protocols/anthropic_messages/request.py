"""The request of a message. Pure: a task in, a body out."""

from __future__ import annotations

from typing import Any

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_upstream.protocols.anthropic_messages.minimums import min_cache_tokens
from penstock.inference_upstream.protocols.anthropic_messages.thinking import thinking
from penstock.inference_upstream.protocols.anthropic_messages.turns import MARK, system, turns
from penstock.inference_upstream.protocols.breakpoints import TOOLS, breakpoints
from penstock.inference_upstream.protocols.request_fields import (
    check_modalities,
    chosen_tools,
    extra_fields,
    finished,
    parse_json_field,
)
from penstock.inference_upstream.protocols.shortest import shortest
from penstock.inference_upstream.protocols.wire import Target
from penstock.rpc.errors import invalid
from penstock.service.purity import pure

DEFAULT_MAX_TOKENS = 4096
"""Length that is asked for where neither the caller nor the model's section says one; the protocol
demands one.
"""
OUR_FIELDS = frozenset(
    {
        "model",
        "max_tokens",
        "messages",
        "system",
        "tools",
        "tool_choice",
        "thinking",
        "output_config",
        "stop_sequences",
        "temperature",
        "top_p",
    }
)
"""Body fields that the fields of a task say."""
MODES = {
    pb.TOOL_CHOICE_MODE_UNSPECIFIED: "auto",
    pb.TOOL_CHOICE_MODE_AUTO: "auto",
    pb.TOOL_CHOICE_MODE_NONE: "none",
    pb.TOOL_CHOICE_MODE_REQUIRED: "any",
}


@pure
def message_request(task: pb.GenerateTask, target: Target, *, stream: bool) -> dict[str, Any]:
    """The body of `POST /messages`.

    Raises:
        Fault: INVALID_ARGUMENT naming a field that the model does not take, or that should be JSON
            and is not.
    """
    check_modalities(task, target)
    if task.HasField("top_logprobs"):
        raise invalid("task.generate.top_logprobs", "is not taken by this upstream; leave it out")
    marked = breakpoints(task, target.switches, min_cache_tokens(target.model))
    max_tokens = task.max_tokens or target.max_output_tokens or DEFAULT_MAX_TOKENS
    body: dict[str, Any] = {"model": target.model, "max_tokens": max_tokens, "stream": stream}
    if blocks := system(task, target.switches, marked):
        body["system"] = blocks
    body["messages"] = turns(task, target.switches, marked)
    body |= _tools(task, target, is_marked=TOOLS in marked)
    told = thinking(task.reasoning, target.switches, max_tokens)
    body |= told
    if task.stop:
        body["stop_sequences"] = list(task.stop)
    if target.switches.temperature and not told:
        for name in ("temperature", "top_p"):
            if task.HasField(name):
                body[name] = shortest(getattr(task, name))
    if form := _format(task.response_format):
        body["output_config"] = {**body.get("output_config", {}), "format": form}
    body |= extra_fields(task, OUR_FIELDS)
    return finished(body, target)


def _tools(task: pb.GenerateTask, target: Target, *, is_marked: bool) -> dict[str, Any]:
    """The tools, and which of them the model may or must call."""
    if not task.tools:
        return {}
    chosen = chosen_tools(task) if len(task.tool_choice.functions) > 1 else list(task.tools)
    tools = [_tool(tool, target) for tool in chosen]
    if is_marked:
        last = max((at for at, tool in enumerate(chosen) if tool.cache_breakpoint), default=None)
        if last is not None:
            tools[last]["cache_control"] = MARK
    fields: dict[str, Any] = {"tools": tools}
    choice = _tool_choice(task)
    is_single = task.HasField("parallel_tool_calls") and not task.parallel_tool_calls
    if is_single and target.switches.parallel_tools and choice.get("type") != "none":
        choice = {**(choice or {"type": "auto"}), "disable_parallel_tool_use": True}
    if choice:
        fields["tool_choice"] = choice
    return fields


def _tool(tool: pb.Tool, target: Target) -> dict[str, Any]:
    field = f"task.tools[{tool.name}].parameters_json"
    schema = parse_json_field(field, tool.parameters_json) if tool.parameters_json else None
    made: dict[str, Any] = {"name": tool.name, "input_schema": schema or {"type": "object"}}
    if tool.description:
        made["description"] = tool.description
    if tool.HasField("strict") and target.switches.strict_schemas:
        made["strict"] = tool.strict
    return made


def _tool_choice(task: pb.GenerateTask) -> dict[str, Any]:
    if not task.HasField("tool_choice"):
        return {}
    choice = task.tool_choice
    forces = choice.mode in (pb.TOOL_CHOICE_MODE_UNSPECIFIED, pb.TOOL_CHOICE_MODE_REQUIRED)
    if len(choice.functions) == 1 and forces:
        return {"type": "tool", "name": choice.functions[0]}
    return {"type": MODES[choice.mode]}


def _format(asked: pb.ResponseFormat) -> dict[str, Any] | None:
    if asked.kind == pb.RESPONSE_FORMAT_KIND_JSON_OBJECT:
        field = "task.generate.response_format.kind"
        raise invalid(field, "is not taken by this upstream; give a schema")
    if asked.kind != pb.RESPONSE_FORMAT_KIND_JSON_SCHEMA:
        return None
    schema = parse_json_field("task.response_format.schema_json", asked.schema_json)
    return {"type": "json_schema", "schema": schema}
