"""What of a response is kept, so that a later request can refer to it. Pure: values in and out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import orjson
from penstock.edge.json_fields import Json
from penstock.edge.openai_responses.input_items import (
    FUNCTION_CALL,
    FUNCTION_OUTPUT,
    MESSAGE,
    REASONING,
    kind_of,
)
from penstock.edge.openai_responses.output_items import COMPLETED
from penstock.service.purity import pure

PREFIXES = {MESSAGE: "msg", FUNCTION_CALL: "fc", FUNCTION_OUTPUT: "fco", REASONING: "rs"}
PLAIN_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


class KeptResponse(NamedTuple):
    """A response and the items that it was made from."""

    id: str
    response: bytes
    """The response object."""
    context_ids: tuple[str, ...]
    """Items of the responses before it, oldest first."""
    own: tuple[Json, ...]
    """Items of its own input, then of its output; each has an identifier."""
    inputs: int
    """How many of them are input."""


@pure
def kept_response(
    response: Json, context: Sequence[Json], inputs: Sequence[Json], output: Sequence[Json]
) -> KeptResponse:
    """What is kept of a response.

    Args:
        context: items of the responses before it.
        inputs: its own input, references resolved.
        output: its output, reasoning with its opaque state.
    """
    stem = str(response["id"]).partition("_")[2]
    shown = [_shown(item, f"{stem}_i{index}") for index, item in enumerate(inputs)]
    return KeptResponse(
        id=response["id"],
        response=orjson.dumps(response),
        context_ids=tuple(item["id"] for item in context),
        own=(*shown, *output),
        inputs=len(shown),
    )


def _shown(item: Json, stem: str) -> Json:
    """An input item as it is listed: with its type, an identifier, and parts as content."""
    kind = kind_of(item, "input")
    shown = {**item, "type": kind}
    if PLAIN_ID.fullmatch(str(item.get("id") or "")) is None:
        shown["id"] = f"{PREFIXES.get(kind, 'item')}_{stem}"
    if kind == MESSAGE and isinstance(item.get("content"), str):
        part = "output_text" if item.get("role") == "assistant" else "input_text"
        shown["content"] = [{"type": part, "text": item["content"]}]
        if part == "output_text":
            shown["content"][0]["annotations"] = []
    if kind != REASONING:
        shown.setdefault("status", COMPLETED)
    return shown


@pure
def page_of(items: Sequence[Json], *, limit: int, is_ascending: bool, after: str) -> Json:
    """A page of items.

    Args:
        items: oldest first.
        after: identifier of the item that the page follows; empty for the first page. One that is
            not there makes the page empty.
    """
    ordered = list(items) if is_ascending else list(reversed(items))
    if after:
        places = [index for index, item in enumerate(ordered) if item["id"] == after]
        ordered = ordered[places[0] + 1 :] if places else []
    page = ordered[:limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else "",
        "last_id": page[-1]["id"] if page else "",
        "has_more": len(ordered) > len(page),
    }
