"""Values of a JSON body that have the expected type, or a refusal that names the field.

Every function takes the place of the value, such as `messages[2].content`, which the refusal names.
A null is the same as an absent field.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import orjson
from penstock.edge.wire import BadRequest
from penstock.service.purity import pure

Json: TypeAlias = dict[str, Any]
T = TypeVar("T")


@pure
def parse_body(body: bytes) -> Json:
    """The body as a JSON object.

    Raises:
        BadRequest: it is something else, or no UTF-8.
    """
    try:
        value = orjson.loads(body)
    except ValueError as error:
        raise BadRequest(f"the body is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadRequest("the body must be a JSON object")
    return value


@pure
def refused(at: str, problem: str) -> BadRequest:
    """The refusal of a field."""
    return BadRequest(f"{at}: {problem}", at)


@pure
def required(value: T | None, at: str) -> T:
    """A value that must be there."""
    if value is None:
        raise refused(at, "is required")
    return value


@pure
def text(value: Any, at: str) -> str:
    """A text; empty where it is absent."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise refused(at, "must be a string")
    return value


@pure
def name(value: Any, at: str) -> str:
    """A text that must be there and not be empty."""
    given = text(required(value, at), at)
    if not given:
        raise refused(at, "must not be empty")
    return given


@pure
def boolean(value: Any, at: str) -> bool | None:
    """True or false; None where it is absent."""
    if value is not None and not isinstance(value, bool):
        raise refused(at, "must be true or false")
    return value


@pure
def whole(value: Any, at: str, least: int, most: int) -> int | None:
    """A whole number between two; None where it is absent."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise refused(at, "must be an integer")
    if not least <= value <= most:
        raise refused(at, f"must be between {least} and {most}")
    return value


@pure
def number(value: Any, at: str, least: float, most: float) -> float | None:
    """A number between two; None where it is absent."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refused(at, "must be a number")
    if not least <= value <= most:
        raise refused(at, f"must be between {least:g} and {most:g}")
    return float(value)


@pure
def word(value: Any, at: str, known: Sequence[str]) -> str:
    """One of the known words; empty where it is absent."""
    given = text(value, at)
    if value is not None and given not in known:
        raise refused(at, f"must be one of {', '.join(known)}")
    return given


@pure
def object_at(value: Any, at: str) -> Json:
    """An object; empty where it is absent."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise refused(at, "must be an object")
    return value


@pure
def texts_at(value: Any, at: str) -> dict[str, str]:
    """An object whose values are texts; empty where it is absent."""
    given = object_at(value, at)
    for name_, text_ in given.items():
        if not isinstance(text_, str):
            raise refused(f"{at}.{name_}", "must be a string")
    return given


@pure
def list_at(value: Any, at: str) -> list[Any]:
    """A list; empty where it is absent."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise refused(at, "must be an array")
    return value


@pure
def objects(value: Any, at: str) -> Iterator[tuple[str, Json]]:
    """The objects of a list, each with its place; none where the list is absent."""
    for index, each in enumerate(list_at(value, at)):
        place = f"{at}[{index}]"
        yield place, object_at(required(each, place), place)


@pure
def decoded(value: Any, at: str) -> bytes:
    """Bytes that are given as base64."""
    try:
        return base64.b64decode(name(value, at), validate=True)
    except binascii.Error:
        raise refused(at, "is not base64") from None


@pure
def dumped(value: Any) -> str:
    """A value as JSON text; keys keep their order, since for a schema it is the order in which the
    model answers.
    """
    return orjson.dumps(value).decode()


@pure
def unknown_fields(body: Mapping[str, Any], known: frozenset[str]) -> list[str]:
    """The names of fields with a value that are not known."""
    return [each for each, value in body.items() if each not in known and value is not None]
