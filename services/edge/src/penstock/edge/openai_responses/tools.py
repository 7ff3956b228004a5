"""Tools and the choice among them. Pure: JSON in, fields of the task out."""

from __future__ import annotations

from typing import Any

from penstock.api.inference.v1 import inference_pb2 as pb
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
    "none": pb.TOOL_CHOICE_MODE_NONE,
    "required": pb.TOOL_CHOICE_MODE_REQUIRED,
}


@pure
def put_tools(task: pb.GenerateTask, body: Json) -> None:
    """Set the task's tools and which of them the model may or must call.

    Raises:
        BadRequest: naming the field that is wrong, or a tool that runs at OpenAI.
    """
    task.tools.extend(_tool(tool, at) for at, tool in objects(body.get("tools"), "tools"))
    parallel = boolean(body.get("parallel_tool_calls"), "parallel_tool_calls")
    if parallel is not None:
        task.parallel_tool_calls = parallel
    choice = body.get("tool_choice")
    if choice is not None:
        _put_choice(task, choice)


def _tool(tool: Json, at: str) -> pb.Tool:
    kind = name(tool.get("type"), f"{at}.type")
    if kind != "function":
        raise unsupported(f"{at}.type", f"{kind!r} is not available; give a function")
    parameters = object_at(tool.get("parameters"), f"{at}.parameters")
    made = pb.Tool(
        name=name(tool.get("name"), f"{at}.name"),
        description=text(tool.get("description"), f"{at}.description"),
        parameters_json=dumped(parameters) if parameters else "",
    )
    strict = boolean(tool.get("strict"), f"{at}.strict")
    if strict is not None:
        made.strict = strict
    return made


def _put_choice(task: pb.GenerateTask, choice: Any) -> None:
    at = "tool_choice"
    if isinstance(choice, str):
        task.tool_choice.mode = MODES[word(choice, at, tuple(MODES))]
        return
    given = object_at(choice, at)
    kind = name(given.get("type"), f"{at}.type")
    if kind == "function":
        task.tool_choice.mode = pb.TOOL_CHOICE_MODE_REQUIRED
        named = [name(given.get("name"), f"{at}.name")]
    elif kind == "allowed_tools":
        mode = word(required(given.get("mode"), f"{at}.mode"), f"{at}.mode", ("auto", "required"))
        task.tool_choice.mode = MODES[mode]
        allowed = objects(given.get("tools"), f"{at}.tools")
        named = [name(tool.get("name"), f"{place}.name") for place, tool in allowed]
    else:
        raise unsupported(f"{at}.type", f"{kind!r} is not available; name a function")
    known = {tool.name for tool in task.tools}
    for called in named:
        if called not in known:
            raise refused(at, f"names {called!r}, which is not among the tools")
    task.tool_choice.functions.extend(named)
