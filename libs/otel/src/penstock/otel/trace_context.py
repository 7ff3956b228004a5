"""W3C Trace Context, and which new traces are sampled.

Time and chance are arguments, so nothing here reads a clock.
"""

from __future__ import annotations

import math
import random
import re

TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
TRACEPARENT_LENGTH = 55
SAMPLED_LAST_DIGITS = frozenset("13579bdf")
"""Last digits of a traceparent whose flags have the sampled bit set."""

_NON_ZERO_IDS = 1 << 64 | 1
"""Bits that make neither a trace identifier (upper 128 bits) nor a span identifier zero."""


def is_valid(traceparent: str) -> bool:
    """Whether this is a traceparent of version 00 whose identifiers are not all zero."""
    return TRACEPARENT.fullmatch(traceparent) is not None


def is_sampled(traceparent: str) -> bool:
    """Whether a valid traceparent has the sampled flag."""
    return traceparent[-1] in SAMPLED_LAST_DIGITS


def format_traceparent(trace_id: int, span_id: int, sampled: bool) -> str:
    """A traceparent of version 00."""
    return f"00-{trace_id:032x}-{span_id:016x}-0{int(sampled)}"


def new_trace_id(rng: random.Random) -> str:
    """A trace identifier: 32 hexadecimal digits, not all zero."""
    return f"{rng.getrandbits(128) or 1:032x}"


def new_span_id(rng: random.Random) -> str:
    """A span identifier: 16 hexadecimal digits, not all zero."""
    return f"{rng.getrandbits(64) or 1:016x}"


def new_unsampled_traceparent(rng: random.Random) -> str:
    """The traceparent of a new trace that is not sampled.

    Both identifiers come from one draw, because most traces in production are of this kind.
    """
    digits = f"{rng.getrandbits(192) | _NON_ZERO_IDS:048x}"
    return f"00-{digits[:32]}-{digits[32:]}-00"


class RateLimitingSampler:
    """Samples at most so many new traces a second: a token bucket that holds one second's worth.

    Args:
        traces_per_s: infinite samples every trace.
    """

    def __init__(self, traces_per_s: float) -> None:
        self._traces_per_s = traces_per_s
        self._tokens = traces_per_s
        self._refilled_s = 0.0

    def should_sample(self, now_s: float) -> bool:
        """Whether to sample the trace that begins at `now_s` (monotonic seconds); takes a token."""
        if math.isinf(self._traces_per_s):
            return True
        refill = (now_s - self._refilled_s) * self._traces_per_s
        self._tokens = min(max(self._traces_per_s, 1.0), self._tokens + refill)
        self._refilled_s = now_s
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
