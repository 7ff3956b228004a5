"""The error in a provider's body, in whichever of the usual shapes it comes.

OpenAI and most others: `{"error": {"message", "type", "param", "code"}}`. Anthropic: `{"type":
"error", "error": {"type", "message"}}`. Google: the same in a list, with `status` and `details`.
Bedrock, vLLM: the fields without `error`. Ollama: `{"error": "text"}`. FastAPI: `{"detail": ...}`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson
from penstock.service.purity import pure

MAX_MESSAGE = 4096
"""Characters of a provider's message that are looked at."""


@dataclass(frozen=True)
class ErrorDetails:
    """What a provider says of an error; texts are empty where it says nothing."""

    message: str = ""
    type: str = ""
    code: str = ""
    param: str = ""
    status: int = 0
    """An HTTP status that the body itself gives; 0 for none."""
    retry_delay: str = ""
    """Google's `retryDelay`, such as `45.8s`."""

    @staticmethod
    def of_body(body: bytes) -> ErrorDetails:
        """The error of a response's body; a body that is not JSON says nothing."""
        try:
            return ErrorDetails.of_value(orjson.loads(body))
        except ValueError:
            return ErrorDetails()

    @staticmethod
    @pure
    def of_value(value: Any) -> ErrorDetails:
        """The error of a JSON value."""
        if isinstance(value, list):
            value = value[0] if value else {}
        if isinstance(value, str):
            return ErrorDetails(message=value[:MAX_MESSAGE])
        if not isinstance(value, dict):
            return ErrorDetails()
        inner = value.get("error")
        if isinstance(inner, dict | list | str) and inner:
            return ErrorDetails.of_value(inner)
        return _of_object(value)


def _of_object(value: dict[str, Any]) -> ErrorDetails:
    code = value.get("code")
    details = [each for each in _list(value.get("details")) if isinstance(each, dict)]
    return ErrorDetails(
        message=_message(value)[:MAX_MESSAGE],
        type=_word(value.get("type") or value.get("status")),
        code=_word(_google_reason(details) or _inner_code(value) or code),
        param=_word(value.get("param")),
        status=_status(code, value.get("status"), value.get("status_code")),
        retry_delay=next(
            (_word(each["retryDelay"]) for each in details if "retryDelay" in each), ""
        ),
    )


def _message(value: dict[str, Any]) -> str:
    for name in ("message", "detail", "Message", "error_msg", "msg"):
        said = value.get(name)
        if isinstance(said, str) and said:
            return said
        for each in _list(said):
            if isinstance(each, dict) and isinstance(each.get("msg"), str):
                return str(each["msg"])
    return ""


def _google_reason(details: Iterable[dict[str, Any]]) -> str:
    """`reason` of Google's ErrorInfo, which is finer than its status."""
    return next((_word(each["reason"]) for each in details if "reason" in each), "")


def _inner_code(value: dict[str, Any]) -> str:
    """Azure's finer code of a filtered request."""
    inner = value.get("innererror") or value.get("inner_error")
    return _word(inner.get("code")) if isinstance(inner, dict) else ""


def _status(*values: Any) -> int:
    """The first of the values that is an HTTP status of an error, as a number or as digits."""
    for value in values:
        is_digits = isinstance(value, str) and value.isascii() and value.isdigit()
        number = int(value[:4]) if is_digits else value
        if isinstance(number, int) and 400 <= number <= 599:
            return number
    return 0


def _word(value: Any) -> str:
    return str(value)[:128] if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
