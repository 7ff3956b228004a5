"""Why a call failed and what to do about it, in one line for people at a terminal."""

from __future__ import annotations

from penstock.client import PenstockError

ADVICE = {
    "UNAVAILABLE": "check that `penstock up` runs, and the address",
    "UNAUTHENTICATED": "check --key, and --token for services behind the router",
    "PERMISSION_DENIED": "this key or token may not do that",
    "DEADLINE_EXCEEDED": "give it more time with --timeout",
    "RESOURCE_EXHAUSTED": "`penstock usage` shows what is used",
}
"""What to do about a failure, by gRPC code. (An error's own advice is for programs.)"""


def call_problem(error: PenstockError) -> str:
    """What failed, and what to do where that can be said."""
    advice = ADVICE.get(error.code, "")
    return f"{error.message} ({advice})" if advice else error.message


def call_details(error: PenstockError) -> dict[str, object]:
    """The failure for programs."""
    return {
        "code": error.code,
        "field": error.field,
        "reason": error.reason,
        "retry_after_s": error.retry_after_s,
    }
