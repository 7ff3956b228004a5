"""Where the fields of a JSON object stand in its text, so that one can be changed and every other
byte stays as it came. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from penstock.service.purity import pure

BLANK = re.compile(r"[ \t\n\r]*")
Edit = tuple[int, int, str]
"""A piece of a text, from where to where, and what stands there instead."""


class Placed(NamedTuple):
    """A field of an object: its value, and where value and name stand in the object's text."""

    value: Any
    start: int
    end: int
    name_start: int = 0
    name_end: int = 0


class AmbiguousJson(ValueError):
    """Readers of JSON differ in what this text says."""


@pure
def placed_fields(text: str) -> dict[str, Placed]:
    """The fields of a JSON object with their places.

    Raises:
        ValueError: the text is no JSON object, or an object in it has a field twice.
    """
    decoder = json.JSONDecoder(object_pairs_hook=_unique)
    at = _skip(text, 0)
    if text[at : at + 1] != "{":
        raise ValueError("no object")
    fields: dict[str, Placed] = {}
    at = _skip(text, at + 1)
    if text[at : at + 1] == "}" and _skip(text, at + 1) == len(text):
        return fields
    mark = ","
    while mark == ",":
        if text[at : at + 1] != '"':
            raise ValueError("no name")
        name_start = at
        name, name_end = decoder.raw_decode(text, at)
        at = _expect(text, name_end, ":")
        value, end = decoder.raw_decode(text, at)
        if name in fields:
            raise AmbiguousJson(name)
        fields[name] = Placed(value, at, end, name_start, name_end)
        at = _skip(text, end)
        mark, at = text[at : at + 1], _skip(text, at + 1)
    if mark != "}" or at != len(text):
        raise ValueError("no end")
    return fields


@pure
def put_first(text: str, start: int, name: str, value: str) -> Edit:
    """A field before all others of the object, not empty, whose text begins at `start`."""
    begin = text.index("{", start) + 1
    return begin, begin, f"{quoted(name)}:{value},"


@pure
def edited(text: str, edits: Sequence[Edit]) -> bytes:
    """The text with pieces of it replaced, in UTF-8."""
    made, at = [], 0
    for start, end, new in sorted(edits):
        made += [text[at:start], new]
        at = end
    return "".join([*made, text[at:]]).encode()


@pure
def quoted(value: str) -> str:
    """A text as JSON."""
    return json.dumps(value, ensure_ascii=False)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise AmbiguousJson
    return made


def _skip(text: str, at: int) -> int:
    blank = BLANK.match(text, at)
    return blank.end() if blank is not None else at


def _expect(text: str, at: int, mark: str) -> int:
    at = _skip(text, at)
    if text[at : at + 1] != mark:
        raise ValueError(f"no {mark}")
    return _skip(text, at + 1)
