"""A request of `POST /v1/responses`. Pure: bytes in, a task out.

What a request refers to (the response before it, single items) is kept in the store. So reading has
two steps: `references` says what is needed, and `task_of` makes the task once it is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.edge.json_fields import (
    Json,
    boolean,
    name,
    refused,
    text,
    texts_at,
    unknown_fields,
    word,
)
from penstock.edge.openai_fields import flat, put_tools
from penstock.edge.openai_responses.input_items import (
    REASONING,
    REFERENCE,
    items_of,
    kind_of,
    turns_of,
)
from penstock.edge.openai_responses.options import put_options
from penstock.edge.turn_content import unsupported
from penstock.edge.wire import BadRequest
from penstock.service.purity import pure

REFUSED = {
    "background": "is not available; leave it out, or submit a job",
    "conversation": "is not available; give previous_response_id or the items themselves",
    "moderation": "is not available; leave it out",
    "prompt": "is not available; send the prompt's text as instructions and input",
}
"""Fields that change what is asked for and cannot be honoured."""
HONOURED = frozenset(
    {
        *REFUSED,
        "include",
        "input",
        "instructions",
        "max_output_tokens",
        "metadata",
        "model",
        "parallel_tool_calls",
        "previous_response_id",
        "prompt_cache_key",
        "reasoning",
        "store",
        "stream",
        "temperature",
        "text",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "truncation",
    }
)
"""Fields that have an effect, if only that they are shown again. All others are hints, such as
`user` and `service_tier`, or are not known; they are named to the caller.
"""
NOT_KEPT = (
    "is not kept here: it was never stored, has expired or was deleted; send the items themselves "
    "(with store: false clients do)"
)


class References(NamedTuple):
    """What a request refers to."""

    previous_response_id: str = ""
    """Empty for none."""
    item_ids: tuple[str, ...] = ()
    reasoning_ids: tuple[str, ...] = ()
    """Reasoning that came back without its opaque state, which may be kept."""


class Context(NamedTuple):
    """What of it the store has."""

    items: Sequence[Json] = ()
    """Those of the response before and of its own context, oldest first."""
    referenced: Mapping[str, Json] = {}
    """Single items by their identifiers."""


@pure
def references(body: Json) -> References:
    """What the request refers to.

    Raises:
        BadRequest: naming the field that is wrong.
    """
    ids, reasoning_ids = [], []
    for index, item in enumerate(items_of(body.get("input"))):
        kind = kind_of(item, f"input[{index}]")
        if kind == REFERENCE:
            ids.append(name(item.get("id"), f"input[{index}].id"))
        elif _lacks_state(kind, item):
            reasoning_ids.append(name(item["id"], f"input[{index}].id"))
    previous = text(body.get("previous_response_id"), "previous_response_id")
    return References(previous, tuple(ids), tuple(reasoning_ids))


def _lacks_state(kind: str, item: Json) -> bool:
    return kind == REASONING and bool(item.get("id")) and not item.get("encrypted_content")


@pure
def unresolved(at: str, identifier: str) -> BadRequest:
    """The refusal of a reference to what is not kept."""
    return BadRequest(f"{at}: {identifier!r} {NOT_KEPT}", at, "not_found")


@pure
def input_of(body: Json, context: Context) -> list[Json]:
    """The items of the request itself, with those that it refers to in their places.

    Raises:
        BadRequest: naming a reference to what is not kept.
    """
    items = []
    for index, item in enumerate(items_of(body.get("input"))):
        kind = kind_of(item, f"input[{index}]")
        known = context.referenced.get(item["id"]) if item.get("id") else None
        if kind == REFERENCE and known is None:
            raise unresolved(f"input[{index}].id", item["id"])
        is_kept = known is not None and (kind == REFERENCE or _lacks_state(kind, item))
        items.append(known if known is not None and is_kept else item)
    return items


@pure
def task_of(body: Json, context: Context, *, needs_input: bool = True) -> pb.GenerateTask:
    """The conversation and how to continue it.

    Args:
        needs_input: whether there must be a message; there need be none to count tokens.

    Raises:
        BadRequest: naming the field that is wrong or cannot be honoured.
    """
    for field, problem in REFUSED.items():
        if body.get(field):
            raise unsupported(field, problem)
    boolean(body.get("background"), "background")
    previous = text(body.get("previous_response_id"), "previous_response_id")
    if previous and not context.items:
        raise unresolved("previous_response_id", previous)
    word(body.get("truncation"), "truncation", ("auto", "disabled"))
    own = input_of(body, context)
    items = [*context.items, *own]
    before = len(context.items)
    places = ["previous_response_id"] * before + [f"input[{each}]" for each in range(len(own))]
    messages = turns_of(items, places)
    if not messages and needs_input:
        raise refused("input", "needs at least one message")
    instructions = text(body.get("instructions"), "instructions")
    if instructions:
        messages = [pb.Message(role=pb.ROLE_SYSTEM, content=instructions), *messages]
    task = pb.GenerateTask(messages=messages)
    put_tools(task, body, flat)
    put_options(task, body)
    return task


@pure
def ignored_fields(body: Json) -> tuple[str, ...]:
    """The fields of the request that have no effect."""
    ignored = unknown_fields(body, HONOURED)
    if body.get("truncation") == "auto":
        ignored.append("truncation")
    return tuple(ignored)


@pure
def is_stored(body: Json) -> bool:
    """Whether the response is to be kept, which is the protocol's default."""
    return boolean(body.get("store"), "store") is not False


@pure
def metadata_of(body: Json) -> Json:
    """The caller's own notes, which are shown again.

    Raises:
        BadRequest: they are not texts by names.
    """
    return texts_at(body.get("metadata"), "metadata")
