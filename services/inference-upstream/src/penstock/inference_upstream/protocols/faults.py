"""What the HTTP statuses and malformed answers of a provider mean to callers.

Pure: statuses and headers in, faults out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from penstock.rpc.errors import Fault, exhausted, failed_precondition, invalid, unavailable
from penstock.rpc.reasons import Reason
from penstock.service.purity import pure

OVERLOADED_STATUS = 529
"""Anthropic's HTTP status for an overloaded server."""
MAX_RETRY_AFTER_S = 300.0


def status_fault(status: int, headers: Mapping[str, str], now_unix_s: float) -> Fault:
    """What an HTTP status other than 200 means.

    408, 409, 429 and 5xx may succeed elsewhere or later; the others are for the caller or the
    operator to correct.
    """
    wait_s = retry_after_s(headers.get("retry-after", ""), now_unix_s)
    if status == 429:
        message = "the upstream limits the rate of requests; retry later or use another one"
        return exhausted(message, reason=Reason.UPSTREAM_RATE_LIMITED, retry_after_s=wait_s or 1.0)
    if status in (408, 409, OVERLOADED_STATUS) or status >= 500:
        message = f"the upstream answered with status {status}; retry later or use another one"
        return unavailable(message, retry_after_s=wait_s or 0.5, reason=Reason.UPSTREAM_OVERLOADED)
    if status in (401, 403):
        message = "the upstream refuses the key that is configured for it"
        return failed_precondition("", message, Reason.UPSTREAM_CREDENTIALS)
    if status == 404:
        return failed_precondition(
            "model", "is not known to the upstream", Reason.UPSTREAM_NO_MODEL
        )
    if status == 413:
        message = "are too long for the upstream; shorten them"
        return invalid("task.messages", message, Reason.UPSTREAM_TOO_LONG)
    message = f"is refused by the upstream with status {status}"
    return invalid("task", message, Reason.UPSTREAM_REFUSED)


@pure
def retry_after_s(value: str, now_unix_s: float) -> float:
    """Seconds of a `retry-after` header, which is a number or a date (RFC 9110, 10.2.3).

    0 where it is missing or neither; at most `MAX_RETRY_AFTER_S`.
    """
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - now_unix_s
        except (TypeError, ValueError):
            return 0.0
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S) if math.isfinite(seconds) else 0.0


def malformed(what: str) -> Fault:
    """The fault of an upstream whose answer is not the protocol."""
    return unavailable(
        f"the upstream's answer is malformed: {what}", reason=Reason.UPSTREAM_MALFORMED
    )
