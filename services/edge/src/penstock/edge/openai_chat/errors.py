"""Failures as OpenAI's clients expect them: a status, and `error` with all four keys. Pure."""

from __future__ import annotations

from penstock.edge.json_fields import Json
from penstock.edge.wire import Failure, FailureKind
from penstock.service.purity import pure

TYPES = {
    FailureKind.INVALID: ("invalid_request_error", None),
    FailureKind.UNAUTHENTICATED: ("invalid_request_error", "invalid_api_key"),
    FailureKind.FORBIDDEN: ("invalid_request_error", "permission_denied"),
    FailureKind.NOT_FOUND: ("invalid_request_error", "model_not_found"),
    FailureKind.TIMED_OUT_READING: ("invalid_request_error", "request_timeout"),
    FailureKind.CONFLICT: ("invalid_request_error", "conflict"),
    FailureKind.TOO_LARGE: ("invalid_request_error", "request_too_large"),
    FailureKind.RATE_LIMITED: ("rate_limit_error", "rate_limit_exceeded"),
    FailureKind.NO_BUDGET: ("insufficient_quota", "insufficient_quota"),
    FailureKind.NO_SUCH_METHOD: ("invalid_request_error", "method_not_supported"),
    FailureKind.CLIENT_LEFT: ("server_error", "cancelled"),
    FailureKind.INTERNAL: ("server_error", "internal_error"),
    FailureKind.UNIMPLEMENTED: ("invalid_request_error", "not_supported"),
    FailureKind.OVERLOADED: ("server_error", "server_overloaded"),
    FailureKind.TIMED_OUT: ("server_error", "timeout"),
}
"""Type and code."""
STATUSES = {FailureKind.NO_BUDGET: 429}
"""Where the status is not that of the kind."""


@pure
def error_object(failure: Failure) -> Json:
    """The error, as a body or as an event."""
    kind, code = TYPES[failure.kind]
    return {
        "error": {
            "message": failure.message,
            "type": kind,
            "param": failure.param or None,
            "code": failure.code or code,
        }
    }


@pure
def status_of(failure: Failure) -> int:
    """The HTTP status."""
    return STATUSES.get(failure.kind, failure.kind.value)
