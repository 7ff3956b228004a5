"""What Chat Completions and Responses have in common, in different places. Pure: JSON in, fields of
the task out.

Chat Completions puts what describes a function, a choice or a schema into an object of its own;
Responses puts it beside the type. `Inside` says where.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.edge.json_fields import (
    Json,
    boolean,
    decoded,
    dumped,
    name,
    object_at,
    objects,
    refused,
    required,
    text,
    word,
)
from penstock.edge.turn_content import unsupported, web_address
from penstock.service.purity import pure

MODES = {
    "auto": pb.TOOL_CHOICE_MODE_AUTO,
    "none": pb.TOOL_CHOICE_MODE_NONE,
    "required": pb.TOOL_CHOICE_MODE_REQUIRED,
}
FORMS = {
    "text": pb.RESPONSE_FORMAT_KIND_TEXT,
    "json_object": pb.RESPONSE_FORMAT_KIND_JSON_OBJECT,
    "json_schema": pb.RESPONSE_FORMAT_KIND_JSON_SCHEMA,
}
DATA_URL = "data:"
Inside = Callable[[Json, str, str], tuple[Json, str]]
"""From an object, the field in which Chat Completions describes it and the object's place: what
describes it, and the place of that.
"""


@pure
def nested(given: Json, field: str, at: str) -> tuple[Json, str]:
    """As Chat Completions has it: in the field."""
    place = f"{at}.{field}"
    return object_at(required(given.get(field), place), place), place


@pure
def flat(given: Json, _field: str, at: str) -> tuple[Json, str]:
    """As Responses has it: beside the type."""
    return given, at


@pure
def put_tools(task: pb.GenerateTask, body: Json, inside: Inside) -> None:
    """Set the task's tools and which of them the model may or must call.

    Raises:
        BadRequest: naming the field that is wrong, or a tool that is no function.
    """
    task.tools.extend(_tool(tool, at, inside) for at, tool in objects(body.get("tools"), "tools"))
    parallel = boolean(body.get("parallel_tool_calls"), "parallel_tool_calls")
    if parallel is not None:
        task.parallel_tool_calls = parallel
    if body.get("tool_choice") is not None:
        _put_choice(task, body["tool_choice"], inside)


def _tool(given: Json, at: str, inside: Inside) -> pb.Tool:
    kind = name(given.get("type"), f"{at}.type")
    if kind != "function":
        raise unsupported(f"{at}.type", f"{kind!r} is not available; give a function")
    function, place = inside(given, "function", at)
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


def _put_choice(task: pb.GenerateTask, choice: Any, inside: Inside) -> None:
    at = "tool_choice"
    if isinstance(choice, str):
        task.tool_choice.mode = MODES[word(choice, at, tuple(MODES))]
        return
    given = object_at(choice, at)
    kind = name(given.get("type"), f"{at}.type")
    if kind == "function":
        task.tool_choice.mode = pb.TOOL_CHOICE_MODE_REQUIRED
        named = [_named(given, at, inside)]
    elif kind == "allowed_tools":
        allowed, place = inside(given, "allowed_tools", at)
        mode = required(allowed.get("mode"), f"{place}.mode")
        task.tool_choice.mode = MODES[word(mode, f"{place}.mode", ("auto", "required"))]
        tools = objects(allowed.get("tools"), f"{place}.tools")
        named = [_named(tool, each, inside) for each, tool in tools]
    else:
        raise unsupported(f"{at}.type", f"{kind!r} is not available; name a function")
    known = {tool.name for tool in task.tools}
    missing = [called for called in named if called not in known]
    if missing:
        raise refused(at, f"names {missing[0]!r}, which is not among the tools")
    task.tool_choice.functions.extend(named)


def _named(given: Json, at: str, inside: Inside) -> str:
    function, place = inside(given, "function", at)
    return name(function.get("name"), f"{place}.name")


@pure
def put_form(task: pb.GenerateTask, form: Json, at: str, inside: Inside) -> None:
    """Set the form of the answer; an empty object leaves it open.

    Raises:
        BadRequest: naming the field that is wrong.
    """
    if not form:
        return
    kind = word(required(form.get("type"), f"{at}.type"), f"{at}.type", tuple(FORMS))
    asked = task.response_format
    asked.kind = FORMS[kind]
    if kind == "json_schema":
        given, place = inside(form, "json_schema", at)
        schema = required(given.get("schema"), f"{place}.schema")
        asked.schema_json = dumped(object_at(schema, f"{place}.schema"))
        asked.name = name(given.get("name"), f"{place}.name")
        asked.description = text(given.get("description"), f"{place}.description")
        asked.strict = bool(boolean(given.get("strict"), f"{place}.strict"))


@pure
def image_at(url: str, detail: Any, details: Sequence[str], at: str, detail_at: str) -> pb.Image:
    """An image by its address or in a `data:` URL.

    Raises:
        BadRequest: naming the field that is wrong.
    """
    closely = word(detail, detail_at, details)
    if url.startswith(DATA_URL):
        media_type, data = data_url(url, at)
        return pb.Image(data=data, media_type=media_type, detail=closely)
    return pb.Image(url=web_address(url, at), detail=closely)


@pure
def data_url(url: str, at: str) -> tuple[str, bytes]:
    """The media type and the bytes of a `data:` URL (RFC 2397) in base64.

    Raises:
        BadRequest: it is none.
    """
    head, comma, data = url.removeprefix(DATA_URL).partition(",")
    media_type, _, encoding = head.rpartition(";")
    is_one = comma and encoding == "base64" and media_type and url.startswith(DATA_URL)
    if not is_one:
        raise refused(at, "must be data:MEDIA_TYPE;base64,DATA")
    return media_type.partition(";")[0], decoded(data, at)
