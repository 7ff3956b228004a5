"""Tools and the choice among them. Pure."""

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
        BadRequest: naming the field that is wrong, or a tool that is no function.
    """
    task.tools.extend(_tool(tool, at) for at, tool in objects(body.get("tools"), "tools"))
    parallel = boolean(body.get("parallel_tool_calls"), "parallel_tool_calls")
    if parallel is not None:
        task.parallel_tool_calls = parallel
    if body.get("tool_choice") is not None:
        _put_choice(task, body["tool_choice"])


def _tool(given: Json, at: str) -> pb.Tool:
    kind = name(given.get("type"), f"{at}.type")
    if kind != "function":
        raise unsupported(f"{at}.type", f"{kind!r} is not available; give a function")
    place = f"{at}.function"
    function = object_at(required(given.get("function"), place), place)
    parameters = object_at(function.get("parameters"), f"{place}.parameters")
    made = pb.Tool(
        name=name(function.get("name"), f"{place}.name"),
        description=text(function.get("description"), f"{place}.description"),
        parameters_json=dumped(parameters) if parameters else "",
    )
    strict = boolean(function.get("strict"), f"{place}.strict")
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
        named = [_named(given, at)]
    elif kind == "allowed_tools":
        allowed = object_at(given.get("allowed_tools"), f"{at}.allowed_tools")
        place = f"{at}.allowed_tools.mode"
        mode = word(required(allowed.get("mode"), place), place, ("auto", "required"))
        task.tool_choice.mode = MODES[mode]
        tools = objects(allowed.get("tools"), f"{at}.allowed_tools.tools")
        named = [_named(tool, each) for each, tool in tools]
    else:
        raise unsupported(f"{at}.type", f"{kind!r} is not available; name a function")
    known = {tool.name for tool in task.tools}
    missing = [called for called in named if called not in known]
    if missing:
        raise refused(at, f"names {missing[0]!r}, which is not among the tools")
    task.tool_choice.functions.extend(named)


def _named(given: Json, at: str) -> str:
    function = object_at(required(given.get("function"), f"{at}.function"), f"{at}.function")
    return name(function.get("name"), f"{at}.function.name")
