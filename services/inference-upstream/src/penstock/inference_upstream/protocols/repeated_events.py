"""Events that repeat an earlier one but for the text that they add.

A provider writes the events of a stream by the same code: nearly all are equal, byte by byte, but
for one JSON string. So an event that was read in full and only adds text is a template: what is
before the string and what is behind it. An event that begins and ends alike, with one valid JSON
string between, would be read as the same object with another text, so that string is all that is
read of it. Any other event is read in full.

The template is always the event that was read in full last: nothing has changed since then but the
text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import orjson
from penstock.inference_upstream.protocols.event_stream import Event
from penstock.inference_upstream.protocols.json_values import SHAPE_ERRORS

Json = dict[str, Any]
MAX_TEMPLATES = 8
"""Templates in a row that nothing has repeated; then the stream is read in full to its end."""
PADDING = b',"obfuscation":"'
"""A last field of changing length that OpenAI adds so that lengths do not tell the text."""


class RepeatedEvents:
    """The template of one stream, and the texts of the events that repeat it.

    Args:
        field: the name of the text.
        holder: the object of an event that holds it; may raise SHAPE_ERRORS.
    """

    def __init__(self, field: str, holder: Callable[[Json], Json]) -> None:
        self._field = field
        self._holder = holder
        self._opening = re.compile(rb'"' + field.encode() + rb'"\s*:\s*"')
        self._name: bytes | None = None
        """The type of the template's event; None while there is no template."""
        self._before = self._behind = b""
        self._is_padded = False
        self._unrepeated = 0

    def text_of(self, event: Event) -> str | None:
        """The text of an event that repeats the template; None for any other."""
        data, name = event
        if name != self._name:
            return None
        if self._is_padded:
            data = _without_padding(data)
        begin, end = len(self._before), len(data) - len(self._behind)
        if begin > end or not (data.startswith(self._before) and data.endswith(self._behind)):
            return None
        try:
            text: str = orjson.loads(data[begin - 1 : end + 1])
        except ValueError:
            return None
        self._unrepeated = 0
        return text

    def forget(self) -> None:
        """An event was read in full that does more than add text."""
        self._name = None

    def learn(self, event: Event, value: Json) -> None:
        """An event that only adds text was read in full, as `value`: it is the template from now on
        where the place of its text is beyond doubt.
        """
        self._name = None
        if self._unrepeated >= MAX_TEMPLATES:
            return
        self._unrepeated += 1
        data, name = event
        plain = _without_padding(data)
        openings = [found.end() for found in self._opening.finditer(plain)]
        if len(openings) != 1:
            return
        before = plain[: openings[0]]
        behind = plain[plain.find(b'"', len(before)) :]
        if self._is_place(before, behind, value, is_padded=plain is not data):
            self._name, self._before, self._behind = name, before, behind
            self._is_padded = plain is not data

    def _is_place(self, before: bytes, behind: bytes, value: Json, *, is_padded: bool) -> bool:
        """Whether another text between these two makes an object that differs from `value` in that
        text and in nothing else, but for padding.
        """
        try:
            text = self._holder(value)[self._field]
            other_text = "b" if text == "a" else "a"
            other = orjson.loads(before + other_text.encode() + behind)
            holder = self._holder(other)
            if holder[self._field] != other_text:
                return False
            holder[self._field] = text
        except SHAPE_ERRORS:
            return False
        if is_padded:
            value = {name: each for name, each in value.items() if name != "obfuscation"}
        return bool(other == value)


def _without_padding(data: bytes) -> bytes:
    """An object without padding as its last field; the same bytes where it has none."""
    at = data.rfind(PADDING)
    if at < 0 or not data.endswith(b'"}') or not data[at + len(PADDING) : -2].isalnum():
        return data
    return data[:at] + b"}"
