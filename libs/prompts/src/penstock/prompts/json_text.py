"""JSON made shorter without a change of value, proved for each text.

Anything doubtful is left as it is.
"""

from __future__ import annotations

import json
import re
from typing import Any

_STRING_OR_SPACE = re.compile(r'"(?:[^"\\]|\\.)*"|[ \t\r\n]+')


class _Lexeme(str):
    """A number as it was written: 1.0, 1 and 1e0 are different texts and stay so."""

    __slots__ = ()


class _NotPlain(ValueError):
    """The text holds something that JSON readers disagree about."""


def minify(text: str) -> str | None:
    """Remove the blank space between tokens; string contents and number lexemes keep their bytes.

    Returns None where the text is not one JSON object or array, has duplicate keys or NaN, or gains
    nothing.
    """
    shorter = compact(text)
    return shorter if shorter is not None and len(shorter) < len(text) else None


def compact(text: str) -> str | None:
    """The text without blank space between tokens, proved to have the same value; None where it is
    not one plain object or array.
    """
    if text.lstrip()[:1] not in ("{", "["):
        return None
    shorter = _STRING_OR_SPACE.sub(
        lambda match: match.group() if match.group()[0] == '"' else "", text
    )
    try:
        value = _read(text)
        same = len(shorter) == len(text) or value == _read(shorter)
    except (ValueError, RecursionError):
        return None
    return shorter if same else None


def _read(text: str) -> Any:
    return json.loads(
        text,
        parse_float=_number,
        parse_int=_number,
        parse_constant=_refuse,
        object_pairs_hook=_pairs,
    )


def _number(lexeme: str) -> tuple[str, _Lexeme]:
    return ("number", _Lexeme(lexeme))


def _refuse(constant: str) -> Any:
    raise _NotPlain(constant)


def _pairs(pairs: list[tuple[str, Any]]) -> tuple[str, tuple[tuple[str, Any], ...]]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise _NotPlain("duplicate key")
    return ("object", tuple(pairs))


def sort_keys(text: str) -> str | None:
    """A schema with its object keys in order and no blank space, so that equal schemas are equal
    bytes; None if it is not plain JSON.

    Only for schemas that our own side serialises: the order of an object's keys carries no meaning
    in JSON Schema.
    """
    try:
        value = json.loads(
            text,
            parse_float=_keep,
            parse_int=_keep,
            parse_constant=_refuse,
            object_pairs_hook=_unique,
        )
    except (ValueError, RecursionError):
        return None
    return _write(value)


class _Kept:
    """A number that is written back as it was read."""

    def __init__(self, lexeme: str) -> None:
        self.lexeme = lexeme


def _keep(lexeme: str) -> _Kept:
    return _Kept(lexeme)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise _NotPlain("duplicate key")
    return dict(pairs)


def _write(value: Any) -> str:
    if isinstance(value, _Kept):
        return value.lexeme
    if isinstance(value, dict):
        return "{" + ",".join(f"{_write(key)}:{_write(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_write(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)
