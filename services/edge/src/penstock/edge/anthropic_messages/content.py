"""Content blocks that a caller sends, as parts of a turn. Pure: JSON in, messages out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.edge.json_fields import (
    Json,
    decoded,
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


@pure
def is_marked(block: Json, at: str) -> bool:
    """Whether a cache breakpoint follows the block; `at` is empty for the request itself."""
    place = f"{at}.cache_control" if at else "cache_control"
    control = object_at(block.get("cache_control"), place)
    if not control:
        return False
    word(required(control.get("type"), f"{place}.type"), f"{place}.type", ("ephemeral",))
    word(control.get("ttl"), f"{place}.ttl", ("5m", "1h"))
    return True


@pure
def parts_of(content: Any, at: str) -> list[pb.ContentPart]:
    """The parts of a content that is a text or a list of blocks; empty texts are left out."""
    if isinstance(content, str):
        return [pb.ContentPart(text=content)] if content else []
    parts: list[pb.ContentPart] = []
    for place, block in objects(content, at):
        parts += parts_of_block(block, place)
    return parts


@pure
def parts_of_block(block: Json, at: str) -> list[pb.ContentPart]:
    """The parts of one block; none for an empty text."""
    parts = list(_unmarked(block, at))
    if parts and is_marked(block, at):
        parts[-1].cache_breakpoint = True
    return parts


def _unmarked(block: Json, at: str) -> Iterator[pb.ContentPart]:
    kind = name(block.get("type"), f"{at}.type")
    if kind == "text":
        said = text(required(block.get("text"), f"{at}.text"), f"{at}.text")
        if said:
            yield pb.ContentPart(text=said)
    elif kind == "image":
        yield pb.ContentPart(image=_image(block, f"{at}.source"))
    elif kind == "document":
        yield pb.ContentPart(file=_document(block, at))
    elif kind == "search_result":
        yield pb.ContentPart(text=_search_result(block, at))
    else:
        raise unsupported(
            f"{at}.type", f"{kind!r} is not taken here; send text, image, document or search_result"
        )


def _image(block: Json, at: str) -> pb.Image:
    source = object_at(required(block.get("source"), at), at)
    kind = name(source.get("type"), f"{at}.type")
    if kind == "url":
        return pb.Image(url=_url(source, at))
    if kind == "base64":
        media_type = name(source.get("media_type"), f"{at}.media_type")
        return pb.Image(data=decoded(source.get("data"), f"{at}.data"), media_type=media_type)
    raise unsupported(f"{at}.type", f"{kind!r} is not taken for images; send base64 or url")


def _document(block: Json, at: str) -> pb.File:
    if object_at(block.get("citations"), f"{at}.citations").get("enabled"):
        raise unsupported(f"{at}.citations", "citations are not available; leave them out")
    if block.get("context"):
        raise unsupported(f"{at}.context", "is not available; put it into a text block")
    title = text(block.get("title"), f"{at}.title")
    place = f"{at}.source"
    source = object_at(required(block.get("source"), place), place)
    kind = name(source.get("type"), f"{place}.type")
    if kind == "url":
        return pb.File(url=_url(source, place), name=title)
    if kind == "file":
        return pb.File(file_id=name(source.get("file_id"), f"{place}.file_id"), name=title)
    if kind == "base64":
        media_type = text(source.get("media_type"), f"{place}.media_type") or "application/pdf"
        data = decoded(source.get("data"), f"{place}.data")
        return pb.File(data=data, media_type=media_type, name=title)
    return pb.File(data=_plain(source, kind, place).encode(), media_type="text/plain", name=title)


def _plain(source: Json, kind: str, at: str) -> str:
    """The text of a document that is given as text or as blocks of text."""
    if kind == "text":
        return name(source.get("data"), f"{at}.data")
    if kind != "content":
        raise refused(f"{at}.type", "must be one of base64, content, file, text, url")
    parts = parts_of(required(source.get("content"), f"{at}.content"), f"{at}.content")
    if not all(part.HasField("text") for part in parts):
        raise unsupported(f"{at}.content", "takes text only; send images beside the document")
    return "\n".join(part.text for part in parts)


def _search_result(block: Json, at: str) -> str:
    """A search result as a text, since other wires have no such block."""
    found = parts_of(required(block.get("content"), f"{at}.content"), f"{at}.content")
    head = (text(block.get(each), f"{at}.{each}") for each in ("title", "source"))
    return "\n".join([*filter(None, head), *(part.text for part in found)])


def _url(source: Json, at: str) -> str:
    return web_address(name(source.get("url"), f"{at}.url"), f"{at}.url")
