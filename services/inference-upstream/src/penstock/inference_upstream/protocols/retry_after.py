"""How long a provider asks to be left alone, in each of the forms that are in use."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from penstock.inference_upstream.protocols.error_details import ErrorDetails
from penstock.service.purity import pure

MAX_RETRY_AFTER_S = 3600.0
DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:([\d.]+)s)?(?:([\d.]+)ms)?")
"""Such as `45.8s`, `6m0s`, `1h2m3s`, `20ms`."""
ASKED_IN_WORDS = re.compile(r"(?:try again|retry) (?:in|after) ([\dhms.]+)", re.IGNORECASE)
UNIT_SECONDS = (3600.0, 60.0, 1.0, 0.001)


@pure
def retry_delay_s(headers: Mapping[str, str], details: ErrorDetails, now_unix_s: float) -> float:
    """Seconds to wait; 0 where the provider does not say, at most `MAX_RETRY_AFTER_S`.

    `retry-after-ms` goes before `retry-after`, as with OpenAI's and Anthropic's own clients; then
    Google's `retryDelay` in the body, and last what the message says in words.

    Args:
        headers: by their names in lower case.
    """
    milliseconds = _number(headers.get("retry-after-ms", "")) / 1e3
    wait_s = milliseconds or retry_after_s(headers.get("retry-after", ""), now_unix_s)
    wait_s = wait_s or duration_s(details.retry_delay)
    if not wait_s and (asked := ASKED_IN_WORDS.search(details.message)):
        wait_s = duration_s(asked[1].rstrip("."))
    return min(wait_s, MAX_RETRY_AFTER_S)


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
            return duration_s(value.strip())
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S) if math.isfinite(seconds) else 0.0


@pure
def duration_s(text: str) -> float:
    """Seconds of a duration such as `1m30.5s`; 0 where it is none."""
    found = DURATION.fullmatch(text)
    if not text or found is None:
        return 0.0
    return sum(
        _number(part) * seconds
        for part, seconds in zip(found.groups(), UNIT_SECONDS, strict=True)
        if part
    )


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) and value > 0 else 0.0
