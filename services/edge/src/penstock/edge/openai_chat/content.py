"""The content of a message: a text or a list of parts. Pure."""

from __future__ import annotations

from typing import Any

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.edge.json_fields import Json, decoded, name, object_at, objects, refused, text, word
from penstock.edge.turn_content import unsupported, web_address
from penstock.service.purity import pure

DATA_URL = "data:"
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
    if len(given) == 1 and given[0].HasField("text"):
        message.content = given[0].text
        message.cache_breakpoint = given[0].cache_breakpoint
    else:
        message.parts.extend(given)


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
    place = f"{at}.image_url.url"
    url = name(given.get("url"), place)
    detail = word(given.get("detail"), f"{at}.image_url.detail", DETAILS)
    if url.startswith(DATA_URL):
        media_type, data = _data_url(url, place)
        return pb.Image(data=data, media_type=media_type, detail=detail)
    return pb.Image(url=web_address(url, place), detail=detail)


def _file(given: Json, at: str) -> pb.File:
    filename = text(given.get("filename"), f"{at}.filename")
    if given.get("file_id"):
        return pb.File(file_id=name(given["file_id"], f"{at}.file_id"), name=filename)
    place = f"{at}.file_data"
    media_type, data = _data_url(name(given.get("file_data"), place), place)
    return pb.File(data=data, media_type=media_type, name=filename)


def _data_url(url: str, at: str) -> tuple[str, bytes]:
    """The media type and the bytes of a `data:` URL (RFC 2397) in base64."""
    head, comma, data = url.removeprefix(DATA_URL).partition(",")
    media_type, _, encoding = head.rpartition(";")
    if not comma or encoding != "base64" or not media_type or not url.startswith(DATA_URL):
        raise refused(at, "must be data:MEDIA_TYPE;base64,DATA")
    return media_type.partition(";")[0], decoded(data, at)
