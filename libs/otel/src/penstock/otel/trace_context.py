"""Which new traces are recorded, and W3C Trace Context. Plain: time and chance are arguments."""

from __future__ import annotations

import random
import re

TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
TRACEPARENT_LENGTH = 55
_NOT_ZERO = 1 << 64 | 1
SAMPLED_LAST_DIGITS = frozenset("13579bdf")
"""Last digits of a traceparent whose flags have the sampled bit."""


def is_valid(traceparent: str) -> bool:
    """Whether this is a version 00 traceparent with ids that are not all zero."""
    return TRACEPARENT.fullmatch(traceparent) is not None


def is_sampled(traceparent: str) -> bool:
    """Whether the parent is recorded, for a traceparent known to be valid."""
    return traceparent[-1] in SAMPLED_LAST_DIGITS


def new_trace_id(rng: random.Random) -> str:
    """A trace identifier: 32 hexadecimal digits, not all zero."""
    return f"{rng.getrandbits(128) or 1:032x}"


def new_span_id(rng: random.Random) -> str:
    """A span identifier: 16 hexadecimal digits, not all zero."""
    return f"{rng.getrandbits(64) or 1:016x}"


def new_unsampled_traceparent(rng: random.Random) -> str:
    """The traceparent of a new trace that is not recorded, its two identifiers drawn at once."""
    digits = f"{rng.getrandbits(192) | _NOT_ZERO:048x}"
    return f"00-{digits[:32]}-{digits[32:]}-00"


class RateLimitingSampler:
    """A token bucket: at most `per_s` new traces a second, with a burst of one second's worth.

    Infinite records all.
    """

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._tokens = per_s
        self._at = 0.0

    def take(self, now: float) -> bool:
        """Whether the trace that begins at `now` (monotonic seconds) is recorded."""
        if self._per_s == float("inf"):
            return True
        self._tokens = min(max(self._per_s, 1.0), self._tokens + (now - self._at) * self._per_s)
        self._at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


def format_traceparent(trace_id: int, span_id: int, sampled: bool) -> str:
    """A version 00 traceparent."""
    return f"00-{trace_id:032x}-{span_id:016x}-0{int(sampled)}"
