"""Failures as OpenAI says them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from penstock.edge.json_fields import Json
from penstock.edge.wire import Failure, FailureKind
from penstock.service.purity import pure


class ErrorKind(NamedTuple):
    """A status, and the error's type and code."""

    status: int
    type: str
    code: str | None = None


INVALID = "invalid_request_error"
KINDS: Mapping[FailureKind, ErrorKind] = {
    FailureKind.INVALID: ErrorKind(400, INVALID),
    FailureKind.UNAUTHENTICATED: ErrorKind(401, INVALID, "invalid_api_key"),
    FailureKind.FORBIDDEN: ErrorKind(403, INVALID, "permission_denied"),
    FailureKind.NOT_FOUND: ErrorKind(404, INVALID, "not_found"),
    FailureKind.NO_SUCH_METHOD: ErrorKind(405, INVALID, "method_not_allowed"),
    FailureKind.TIMED_OUT_READING: ErrorKind(408, INVALID, "request_timeout"),
    FailureKind.CONFLICT: ErrorKind(409, INVALID, "conflict"),
    FailureKind.TOO_LARGE: ErrorKind(413, INVALID, "request_too_large"),
    FailureKind.RATE_LIMITED: ErrorKind(429, "rate_limit_error", "rate_limit_exceeded"),
    FailureKind.NO_BUDGET: ErrorKind(429, "insufficient_quota", "insufficient_quota"),
    FailureKind.CLIENT_LEFT: ErrorKind(499, "server_error", "cancelled"),
    FailureKind.INTERNAL: ErrorKind(500, "server_error", "server_error"),
    FailureKind.UNIMPLEMENTED: ErrorKind(501, "server_error", "not_implemented"),
    FailureKind.OVERLOADED: ErrorKind(503, "server_error", "overloaded"),
    FailureKind.TIMED_OUT: ErrorKind(504, "server_error", "timeout"),
}


@pure
def error_object(failure: Failure) -> Json:
    """The body of a failure; all four keys are there whatever is known."""
    kind = KINDS[failure.kind]
    told = {
        "message": failure.message,
        "type": kind.type,
        "param": failure.param or None,
        "code": failure.code or kind.code,
    }
    return {"error": told}
