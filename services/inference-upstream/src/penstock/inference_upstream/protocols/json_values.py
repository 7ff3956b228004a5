"""JSON as providers send it, and values of it that have the expected type or are refused.

`orjson` refuses lone surrogates (`"\\ud83d"`, half a character that a provider split) and numbers
such as NaN. The standard library's parser takes both; such halves are then replaced, since a
message of ours holds whole characters only.
"""

from __future__ import annotations

import json
from typing import Any

import orjson
from penstock.inference_upstream.protocols.faults import malformed

SHAPE_ERRORS = (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError)
"""What reading a JSON value raises that does not have the expected shape."""


def parse_object(body: bytes) -> dict[str, Any]:
    """A body that is a JSON object.

    Raises:
        Fault: UPSTREAM_MALFORMED where it is not.
    """
    try:
        data = orjson.loads(body)
    except ValueError:
        data = _parse_leniently(body)
    if not isinstance(data, dict):
        raise malformed("it is not a JSON object")
    return data


def _parse_leniently(body: bytes) -> Any:
    try:
        return whole_characters(json.loads(body))
    except (ValueError, RecursionError):
        raise malformed("it is not JSON") from None


def whole_characters(value: Any) -> Any:
    """The value with halves of surrogate pairs replaced in every text."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [whole_characters(each) for each in value]
    if isinstance(value, dict):
        return {whole_characters(key): whole_characters(each) for key, each in value.items()}
    return value


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
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
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
