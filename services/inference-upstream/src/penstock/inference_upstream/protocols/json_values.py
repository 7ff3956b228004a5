"""JSON as providers send it, and values of it that have the expected type or are refused.

`orjson` refuses lone surrogates (`"\\ud83d"`, half a character that a provider split) and numbers
such as NaN. The standard library's parser takes both. Halves that follow each other in a stream are
put together; others are replaced, since a message of ours holds whole characters only.
"""

from __future__ import annotations

import json
from typing import Any

import orjson
from penstock.inference_upstream.protocols.faults import malformed

SHAPE_ERRORS = (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError)
"""What reading a JSON value raises that does not have the expected shape."""


class Halves:
    """Half a character that waits for its other half, in the next text of the stream."""

    def __init__(self) -> None:
        self._waiting = ""

    def joined(self, text: str) -> str:
        """The text in whole characters: with the half that waited, without one that is to wait."""
        text, self._waiting = self._waiting + text, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._waiting = text[:-1], text[-1]
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def parse_object(body: bytes, halves: Halves | None = None) -> dict[str, Any]:
    """A body or an event that is a JSON object.

    Args:
        halves: of the stream that the event is of.

    Raises:
        Fault: UPSTREAM_MALFORMED where it is not.
    """
    try:
        data = orjson.loads(body)
    except ValueError:
        data = _parse_leniently(body, halves or Halves())
    if not isinstance(data, dict):
        raise malformed("it is not a JSON object")
    return data


def _parse_leniently(body: bytes, halves: Halves) -> Any:
    try:
        return _whole_characters(json.loads(body), halves)
    except (ValueError, RecursionError):
        raise malformed("it is not JSON") from None


def _whole_characters(value: Any, halves: Halves) -> Any:
    """The value with whole characters in every text that has halves of some."""
    if isinstance(value, str):
        return value if value.isascii() or not _has_halves(value) else halves.joined(value)
    if isinstance(value, list):
        return [_whole_characters(each, halves) for each in value]
    if isinstance(value, dict):
        return {
            _whole_characters(key, Halves()): _whole_characters(each, halves)
            for key, each in value.items()
        }
    return value


def _has_halves(text: str) -> bool:
    return any("\ud800" <= each <= "\udfff" for each in text)


def text_of(value: Any) -> str:
    """A text; empty for null.

    Raises:
        TypeError: it is neither.
    """
    if value is None:
        return ""
    if type(value) is not str:
        raise TypeError("a text is expected")
    return value


def objects_of(value: Any) -> list[dict[str, Any]]:
    """A list of objects; empty for null.

    Raises:
        TypeError: it is neither.
    """
    if value is None:
        return []
    if not isinstance(value, list):
        raise TypeError("a list of objects is expected")
    for each in value:
        if not isinstance(each, dict):
            raise TypeError("a list of objects is expected")
    return value


def object_of(value: Any) -> dict[str, Any]:
    """An object; empty for null.

    Raises:
        TypeError: it is neither.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise TypeError("an object is expected")
    return value


def count_of(value: Any) -> int:
    """A number of tokens; 0 for null.

    Raises:
        TypeError: it is no number.
        ValueError: it is negative.
    """
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("a number is expected")
    if not 0 <= value < MAX_TOKENS:
        raise ValueError("a number of tokens is negative or senseless")
    return int(value)


MAX_TOKENS = 1 << 40
"""More tokens than any call has; what a provider reports beyond it is an error of its own."""


def dumped(value: Any) -> str:
    """The value as JSON text without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
