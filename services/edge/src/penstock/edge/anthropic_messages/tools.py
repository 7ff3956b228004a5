"""Tools and the choice among them. Pure: JSON in, fields of the task out."""

from __future__ import annotations

from typing import Any

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.edge.anthropic_messages.content import is_marked
from penstock.edge.json_fields import (
    Json,
    boolean,
    dumped,
    name,
    object_at,
    objects,
    refused,
    required,
    text,
    word,
)
from penstock.edge.turn_content import unsupported
from penstock.service.purity import pure

MODES = {
    "auto": pb.TOOL_CHOICE_MODE_AUTO,
    "any": pb.TOOL_CHOICE_MODE_REQUIRED,
    "none": pb.TOOL_CHOICE_MODE_NONE,
    "tool": pb.TOOL_CHOICE_MODE_REQUIRED,
}


@pure
def put_tools(task: pb.GenerateTask, body: Json) -> None:
    """Set the task's tools and which of them the model may or must call.

    Raises:
        BadRequest: naming the field that is wrong, or a tool that runs at Anthropic.
    """
    task.tools.extend(_tool(tool, at) for at, tool in objects(body.get("tools"), "tools"))
    choice = object_at(body.get("tool_choice"), "tool_choice")
    if not choice:
        return
    at = "tool_choice"
    kind = word(required(choice.get("type"), f"{at}.type"), f"{at}.type", tuple(MODES))
    task.tool_choice.mode = MODES[kind]
    if kind == "tool":
        called = name(choice.get("name"), f"{at}.name")
        if called not in {tool.name for tool in task.tools}:
            raise refused(f"{at}.name", f"names {called!r}, which is not among the tools")
        task.tool_choice.functions.append(called)
    single = boolean(choice.get("disable_parallel_tool_use"), f"{at}.disable_parallel_tool_use")
    if single is not None:
        task.parallel_tool_calls = not single


def _tool(tool: Json, at: str) -> pb.Tool:
    kind = text(tool.get("type"), f"{at}.type")
    if kind not in ("", "custom"):
        raise unsupported(f"{at}.type", f"{kind!r} is Anthropic's own; give input_schema")
    place = f"{at}.input_schema"
    schema: Any = object_at(required(tool.get("input_schema"), place), place)
    made = pb.Tool(
        name=name(tool.get("name"), f"{at}.name"),
        description=text(tool.get("description"), f"{at}.description"),
        parameters_json=dumped(schema),
        cache_breakpoint=is_marked(tool, at),
    )
    strict = boolean(tool.get("strict"), f"{at}.strict")
    if strict is not None:
        made.strict = strict
    return made
