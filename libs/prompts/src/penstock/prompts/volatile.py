"""Values that change from call to call in the text of a prompt: times, dates, identifiers, numbers.

Used to say which of them broke a prefix. What may be moved out of the way is decided elsewhere, by
a narrower rule (`prefix.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple


class ValueKind(Enum):
    """What a value is, by its form and the words before it."""

    CLOCK = "clock"
    DATE = "date"
    REQUEST_ID = "request id"
    SESSION_ID = "session id"
    COUNTER = "counter"


class Value(NamedTuple):
    """A value in a line; `start` and `end` are its place in characters."""

    kind: ValueKind
    text: str
    start: int
    end: int


_MONTHS = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|"
    r"Sep(?:t(?:ember)?)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)"
)
_DATE = (
    rf"\d{{4}}[-/.]\d{{1,2}}[-/.]\d{{1,2}}|\d{{1,2}}[-/.]\d{{1,2}}[-/.]\d{{4}}|"
    rf"{_MONTHS}\.? \d{{1,2}}(?:st|nd|rd|th)?,? \d{{4}}|\d{{1,2}}\.? {_MONTHS}\.?,? \d{{4}}"
)
_TIME = (
    r"\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?\s?(?:[AaPp]\.?[Mm]\.?)?"
    r"(?:\s?(?:Z|UTC|GMT|[A-Z]{3,4}|[+-]\d{2}:?\d{2}))?"
)
_EPOCH = r"\b1[4-9]\d{8}(?:\.\d+|\d{3})?\b"
_UUID = r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
_PREFIXED = r"\b[A-Za-z]{2,12}[-_](?=[\w-]*\d)[\w-]{6,}\b"
_HEX = r"\b(?=[0-9a-fA-F]*\d)[0-9a-fA-F]{12,64}\b"
_VALUE = re.compile(
    rf"(?P<clock>(?:{_DATE})[T,]?\s?(?:at )?{_TIME}|{_EPOCH}|{_TIME})|(?P<date>{_DATE})|"
    rf"(?P<id>{_UUID}|{_PREFIXED}|{_HEX})|(?P<number>\b\d+\b)"
)
_SESSION = re.compile(r"session|conversation|thread|run|chat|user", re.IGNORECASE)
LABEL_CHARACTERS = 40
"""How far before an identifier the words are read that say whose it is."""


def values(line: str) -> Iterator[Value]:
    """The values of a line, from left to right."""
    for match in _VALUE.finditer(line):
        yield Value(_kind(line, match), match.group(), match.start(), match.end())


def _kind(line: str, match: re.Match[str]) -> ValueKind:
    group = match.lastgroup
    if group == "clock":
        return ValueKind.CLOCK
    if group == "date":
        return ValueKind.DATE
    if group == "number":
        return ValueKind.COUNTER
    label = line[max(0, match.start() - LABEL_CHARACTERS) : match.end()]
    return ValueKind.SESSION_ID if _SESSION.search(label) else ValueKind.REQUEST_ID


def masked(line: str, found: tuple[Value, ...]) -> str:
    """The line with the names of the kinds in place of its values; `found` are all of them."""
    parts: list[str] = []
    end = 0
    for value in found:
        parts += [line[end : value.start], f"<{value.kind.value}>"]
        end = value.end
    return "".join((*parts, line[end:]))
