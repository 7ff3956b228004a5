"""Failures as this protocol says them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from penstock.edge.json_fields import Json
from penstock.edge.wire import Failure, FailureKind
from penstock.service.purity import pure


class ErrorKind(NamedTuple):
    """A status, and the error's type."""

    status: int
    type: str


KINDS: Mapping[FailureKind, ErrorKind] = {
    FailureKind.INVALID: ErrorKind(400, "invalid_request_error"),
    FailureKind.UNAUTHENTICATED: ErrorKind(401, "authentication_error"),
    FailureKind.NO_BUDGET: ErrorKind(402, "billing_error"),
    FailureKind.FORBIDDEN: ErrorKind(403, "permission_error"),
    FailureKind.NOT_FOUND: ErrorKind(404, "not_found_error"),
    FailureKind.NO_SUCH_METHOD: ErrorKind(405, "invalid_request_error"),
    FailureKind.TIMED_OUT_READING: ErrorKind(408, "timeout_error"),
    FailureKind.CONFLICT: ErrorKind(409, "invalid_request_error"),
    FailureKind.TOO_LARGE: ErrorKind(413, "request_too_large"),
    FailureKind.RATE_LIMITED: ErrorKind(429, "rate_limit_error"),
    FailureKind.CLIENT_LEFT: ErrorKind(499, "api_error"),
    FailureKind.INTERNAL: ErrorKind(500, "api_error"),
    FailureKind.UNIMPLEMENTED: ErrorKind(501, "api_error"),
    FailureKind.TIMED_OUT: ErrorKind(504, "timeout_error"),
    FailureKind.OVERLOADED: ErrorKind(529, "overloaded_error"),
}


@pure
def error_object(failure: Failure, request_id: str) -> Json:
    """The body of a failure, and the data of an `error` event."""
    told = {"type": KINDS[failure.kind].type, "message": failure.message}
    return {"type": "error", "error": told, "request_id": request_id or None}
