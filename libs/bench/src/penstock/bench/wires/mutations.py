"""Damage to streams, of the kinds that a receiver can see.

A letter that becomes another letter inside a text is a valid answer, which nobody can tell from the
right one. Everything else is here: streams that are cut, events that lose or gain a byte of their
structure, bytes that are no text, values of another type, ends that are missing or unknown, errors
in between, events at the wrong place.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

Mutation = Callable[[bytes, Random], bytes | None]
"""The damaged stream; None where the stream has nothing that could be damaged so."""
STRUCTURE = b'{}[]":,'
NOT_TEXT = (b"\xff", b"\xc3", b"\x80", b"\x00", b"\x1f")
"""Bytes that are neither UTF-8 nor allowed in a JSON text."""
OTHER_TYPES: tuple[Any, ...] = (7, -1, True, [1], {"x": 1}, "x", 1e400)
END_WORDS: tuple[Any, ...] = ("abort", "error", "unknown", "", 5, {}, [])
ERRORS: tuple[Any, ...] = (
    {"error": {"message": "boom", "type": "server_error", "code": None}},
    {"error": {"message": "busy", "code": 503}},
    {"error": "boom"},
    {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
)
ANSWER_KEYS = (
    "choices",
    "delta",
    "tool_calls",
    "function",
    "arguments",
    "content_block",
    "partial_json",
    "thinking",
    "text",
    "content",
    "reasoning_content",
    "finish_reason",
    "stop_reason",
    "index",
)
"""Keys whose values are the answer; a wrong type there cannot be passed over."""


def cut_off(body: bytes, rng: Random) -> bytes:
    """The stream ends somewhere before its end marker is whole."""
    markers = (b"data: [DONE]", b'"message_stop"}')
    at = max(body.rfind(marker) + len(marker) - 1 for marker in markers if marker in body)
    return body[: rng.randrange(at)]


def lose_structure(body: bytes, rng: Random) -> bytes:
    """An event loses a byte of its JSON's structure."""
    at = _structural(body, rng)
    return body[:at] + body[at + 1 :]


def add_structure(body: bytes, rng: Random) -> bytes:
    """An event gets one more brace or bracket."""
    at = _structural(body, rng, b"{}[]")
    return body[:at] + body[at : at + 1] + body[at:]


def insert_bytes(body: bytes, rng: Random) -> bytes:
    """A byte that is no text appears inside an event's JSON."""
    at = _structural(body, rng)
    return body[:at] + rng.choice(NOT_TEXT) + body[at:]


def break_field(body: bytes, rng: Random) -> bytes:
    """The name of a line is damaged."""
    lines = [at for at in range(len(body)) if body.startswith(b"\ndata: {", at)]
    at = rng.choice(lines) + 1 + rng.randrange(4)
    return body[:at] + bytes([rng.choice(b"xyzXYZ0")]) + body[at + 1 :]


def change_type(body: bytes, rng: Random) -> bytes | None:
    """A value of the answer becomes one of another type."""
    return _change_event(body, rng, lambda value: _retyped(value, rng))


def change_end(body: bytes, rng: Random) -> bytes | None:
    """The reason why the answer ended becomes one that is no end."""

    def changed(value: Any) -> bool:
        for holder in _objects(value):
            for name in ("finish_reason", "stop_reason"):
                if isinstance(holder.get(name), str):
                    holder[name] = rng.choice(END_WORDS)
                    return True
        return False

    return _change_event(body, rng, changed)


def lose_end(body: bytes, _: Random) -> bytes | None:
    """The event with the reason why the answer ended is lost."""
    events = body.split(b"\n\n")
    kept = [event for event in events if not _has_end(event)]
    return b"\n\n".join(kept) if len(kept) < len(events) else None


def insert_error(body: bytes, rng: Random) -> bytes:
    """The provider reports an error between two events."""
    events = body.split(b"\n\n")
    last = max(1, len(events) - 2)
    event = b"data: " + json.dumps(rng.choice(ERRORS)).encode()
    at = rng.randrange(last)
    return b"\n\n".join([*events[:at], event, *events[at:]])


def lose_frame(body: bytes, rng: Random) -> bytes | None:
    """An event that frames others is lost: a beginning or an end of a block or a message."""
    return _without(body, rng, (b"content_block_st", b'"message_start"', b'"message_stop"'))


def double_frame(body: bytes, rng: Random) -> bytes | None:
    """An event that frames others comes twice."""
    events = body.split(b"\n\n")
    framing = [at for at, event in enumerate(events) if b"content_block_st" in event]
    if not framing:
        return None
    at = rng.choice(framing)
    return b"\n\n".join([*events[: at + 1], *events[at:]])


def join_events(body: bytes, rng: Random) -> bytes:
    """The blank line between two events is lost."""
    places = [at for at in range(len(body)) if body.startswith((b"\n\ndata: {", b"\n\nevent"), at)]
    at = rng.choice(places)
    return body[:at] + body[at + 1 :]


MUTATIONS: tuple[Mutation, ...] = (
    cut_off,
    lose_structure,
    add_structure,
    insert_bytes,
    break_field,
    change_type,
    change_end,
    lose_end,
    insert_error,
    lose_frame,
    double_frame,
    join_events,
)


def mutated(body: bytes, rng: Random) -> tuple[str, bytes] | None:
    """One mutation of a stream, with its name."""
    mutation = rng.choice(MUTATIONS)
    damaged = mutation(body, rng)
    return None if damaged is None or damaged == body else (mutation.__name__, damaged)


def _structural(body: bytes, rng: Random, which: bytes = STRUCTURE) -> int:
    """The place of a byte of an event's JSON that is structure, not text."""
    places, at = [], 0
    for line in body.split(b"\n"):
        if line.startswith(b"data: {"):
            places += [at + 6 + place for place in _outside_texts(line[6:], which)]
        at += len(line) + 1
    return rng.choice(places)


def _outside_texts(text: bytes, which: bytes) -> list[int]:
    """Places of structural bytes; of a text's quotes those at its ends."""
    places, inside, escaped = [], False, False
    for at, byte in enumerate(text):
        if inside and escaped:
            escaped = False
        elif inside and byte == 0x5C:
            escaped = True
        elif byte == 0x22:
            inside = not inside
            if byte in which:
                places.append(at)
        elif not inside and byte in which:
            places.append(at)
    return places


def _change_event(body: bytes, rng: Random, change: Callable[[Any], bool]) -> bytes | None:
    """The stream with one event changed; None where none can be."""
    lines = body.split(b"\n")
    places = [at for at, line in enumerate(lines) if line.startswith(b"data: {")]
    rng.shuffle(places)
    for at in places:
        value = json.loads(lines[at][6:])
        if change(value):
            lines[at] = b"data: " + json.dumps(value).encode()
            return b"\n".join(lines)
    return None


def _objects(value: Any) -> list[dict[str, Any]]:
    """All objects inside a value, itself included."""
    if isinstance(value, list):
        return [found for each in value for found in _objects(each)]
    if not isinstance(value, dict):
        return []
    return [value, *(found for each in value.values() for found in _objects(each))]


def _retyped(value: Any, rng: Random) -> bool:
    holders = [
        (holder, name)
        for holder in _objects(value)
        for name in ANSWER_KEYS
        if holder.get(name) not in (None, "", [], {}, 0)
    ]
    if not holders:
        return False
    holder, name = rng.choice(holders)
    before = holder[name]
    holder[name] = rng.choice([each for each in OTHER_TYPES if type(each) is not type(before)])
    return True


def _has_end(event: bytes) -> bool:
    return b'"finish_reason": "' in event or b'"stop_reason": "' in event


def _without(body: bytes, rng: Random, marks: tuple[bytes, ...]) -> bytes | None:
    events = body.split(b"\n\n")
    framing = [at for at, event in enumerate(events) if any(mark in event for mark in marks)]
    if not framing:
        return None
    at = rng.choice(framing)
    return b"\n\n".join([*events[:at], *events[at + 1 :]])
