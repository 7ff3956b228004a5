"""Content of a message or of a function's output, as parts of a turn. Pure: JSON in, parts out."""

from __future__ import annotations

from typing import Any

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.edge.json_fields import Json, decoded, name, object_at, objects, text
from penstock.edge.openai_fields import DATA_URL, data_url, image_at
from penstock.edge.turn_content import unsupported, web_address
from penstock.service.purity import pure

TEXTS = ("input_text", "output_text", "text")
DETAILS = ("low", "high", "auto", "original")


@pure
def parts_of(content: Any, at: str) -> list[pb.ContentPart]:
    """The parts of a content that is a text or a list; empty texts are left out, refusals too."""
    if isinstance(content, str):
        return [pb.ContentPart(text=content)] if content else []
    parts: list[pb.ContentPart] = []
    for place, given in objects(content, at):
        part = _part(given, place)
        if part is not None:
            part.cache_breakpoint = bool(
                object_at(given.get("prompt_cache_breakpoint"), f"{place}.prompt_cache_breakpoint")
            )
            parts.append(part)
    return parts


@pure
def refusal_of(content: Any, at: str) -> str:
    """The refusals of an assistant's content."""
    if isinstance(content, str):
        return ""
    return "".join(
        text(given.get("refusal"), f"{place}.refusal")
        for place, given in objects(content, at)
        if given.get("type") == "refusal"
    )


def _part(given: Json, at: str) -> pb.ContentPart | None:
    kind = name(given.get("type"), f"{at}.type")
    if kind in TEXTS:
        said = text(given.get("text"), f"{at}.text")
        return pb.ContentPart(text=said) if said else None
    if kind == "refusal":
        return None
    if kind == "input_image":
        return pb.ContentPart(image=_image(given, at))
    if kind == "input_file":
        return pb.ContentPart(file=_file(given, at))
    raise unsupported(
        f"{at}.type", f"{kind!r} is not taken; send input_text, input_image or input_file"
    )


def _image(given: Json, at: str) -> pb.Image:
    if given.get("file_id"):
        raise unsupported(f"{at}.file_id", "is not available; send image_url")
    place = f"{at}.image_url"
    url = name(given.get("image_url"), place)
    image = image_at(url, given.get("detail"), DETAILS, place, f"{at}.detail")
    image.detail = "high" if image.detail == "original" else image.detail
    return image


def _file(given: Json, at: str) -> pb.File:
    filename = text(given.get("filename"), f"{at}.filename")
    if given.get("file_id"):
        return pb.File(file_id=name(given["file_id"], f"{at}.file_id"), name=filename)
    if given.get("file_url"):
        place = f"{at}.file_url"
        return pb.File(url=web_address(name(given["file_url"], place), place), name=filename)
    place = f"{at}.file_data"
    value = name(given.get("file_data"), place)
    if value.startswith(DATA_URL):
        media_type, data = data_url(value, place)
    else:
        media_type, data = "application/pdf", decoded(value, place)
    return pb.File(data=data, media_type=media_type, name=filename)
