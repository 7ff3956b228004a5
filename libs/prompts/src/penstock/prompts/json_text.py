"""JSON texts made shorter, or put in order, without a change of value.

Every result is proved by reading it again. Text that readers of JSON disagree about (duplicate
keys, NaN) is left as it is.
"""

from __future__ import annotations

import json
import re
from typing import Any

_STRING_OR_SPACE = re.compile(r'"(?:[^"\\]|\\.)*"|[ \t\r\n]+')


class _Lexeme(str):
    """A number as it is written: 1.0, 1 and 1e0 are different lexemes and stay different."""

    __slots__ = ()


class _Ambiguous(ValueError):
    """Readers of JSON disagree about the text."""


def minify(text: str) -> str | None:
    """The text without whitespace between tokens; strings and numbers keep their bytes.

    None where the text is not one JSON object or array, is ambiguous, or has no such whitespace.
    """
    shorter = compact(text)
    return shorter if shorter is not None and len(shorter) < len(text) else None


def compact(text: str) -> str | None:
    """The text without whitespace between tokens, also where there is none.

    None where it is not one JSON object or array, or is ambiguous.
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
    """The value with numbers as lexemes and objects as ordered pairs."""
    return json.loads(
        text,
        parse_float=_number,
        parse_int=_number,
        parse_constant=_refuse_constant,
        object_pairs_hook=_object,
    )


def _number(lexeme: str) -> tuple[str, _Lexeme]:
    return ("number", _Lexeme(lexeme))


def _refuse_constant(constant: str) -> Any:
    raise _Ambiguous(constant)


def _object(pairs: list[tuple[str, Any]]) -> tuple[str, tuple[tuple[str, Any], ...]]:
    _require_unique_keys(pairs)
    return ("object", tuple(pairs))


def _require_unique_keys(pairs: list[tuple[str, Any]]) -> None:
    if len({key for key, _ in pairs}) != len(pairs):
        raise _Ambiguous("duplicate key")


def sort_keys(text: str) -> str | None:
    """A JSON text with the keys of its objects in order and without whitespace.

    Equal schemas become equal bytes. The order of properties is meaning to a model: it writes them
    in that order. So this is for targets that are known not to mind. None where the text is no
    JSON, or is ambiguous.
    """
    try:
        value = json.loads(
            text,
            parse_float=_RawNumber,
            parse_int=_RawNumber,
            parse_constant=_refuse_constant,
            object_pairs_hook=_unique_dict,
        )
    except (ValueError, RecursionError):
        return None
    return _write(value)


class _RawNumber:
    """A number that is written as it was read."""

    def __init__(self, lexeme: str) -> None:
        self.lexeme = lexeme


def _unique_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _require_unique_keys(pairs)
    return dict(pairs)


def _write(value: Any) -> str:
    if isinstance(value, _RawNumber):
        return value.lexeme
    if isinstance(value, dict):
        members = (f"{_write(key)}:{_write(value[key])}" for key in sorted(value))
        return "{" + ",".join(members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_write(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)
