"""The content of a message: a text or a list of parts. Pure."""

from __future__ import annotations

from typing import Any

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.edge.json_fields import Json, name, object_at, objects, text
from penstock.edge.openai_fields import data_url, image_at
from penstock.edge.turn_content import put_parts, unsupported
from penstock.service.purity import pure

DETAILS = ("auto", "low", "high")
OTHER_KINDS = {"input_audio": "sound is not taken; send text, image_url or file"}


@pure
def put_content(message: pb.Message, content: Any, at: str) -> None:
    """Set a message's content from a string, a list of parts or nothing."""
    if content is None:
        return
    if isinstance(content, str):
        message.content = content
        return
    parts = [_part(part, place) for place, part in objects(content, at)]
    refusals = [part for part in parts if isinstance(part, str)]
    message.refusal = "".join(refusals)
    given = [part for part in parts if isinstance(part, pb.ContentPart)]
    put_parts(message, given)


def _part(given: Json, at: str) -> pb.ContentPart | str:
    """A part; a refusal as its text."""
    kind = name(given.get("type"), f"{at}.type")
    if kind == "refusal":
        return text(given.get("refusal"), f"{at}.refusal")
    made = pb.ContentPart(cache_breakpoint=_is_breakpoint(given, at))
    if kind == "text":
        made.text = text(given.get("text"), f"{at}.text")
    elif kind == "image_url":
        made.image.CopyFrom(_image(object_at(given.get("image_url"), f"{at}.image_url"), at))
    elif kind == "file":
        made.file.CopyFrom(_file(object_at(given.get("file"), f"{at}.file"), f"{at}.file"))
    else:
        problem = OTHER_KINDS.get(kind, f"{kind!r} is not known; send text, image_url or file")
        raise unsupported(f"{at}.type", problem)
    return made


def _is_breakpoint(given: Json, at: str) -> bool:
    place = f"{at}.prompt_cache_breakpoint"
    return bool(object_at(given.get("prompt_cache_breakpoint"), place))


def _image(given: Json, at: str) -> pb.Image:
    place = f"{at}.image_url"
    url = name(given.get("url"), f"{place}.url")
    return image_at(url, given.get("detail"), DETAILS, f"{place}.url", f"{place}.detail")


def _file(given: Json, at: str) -> pb.File:
    filename = text(given.get("filename"), f"{at}.filename")
    if given.get("file_id"):
        return pb.File(file_id=name(given["file_id"], f"{at}.file_id"), name=filename)
    place = f"{at}.file_data"
    media_type, data = data_url(name(given.get("file_data"), place), place)
    return pb.File(data=data, media_type=media_type, name=filename)
