"""When the client retries: a pure function of the fault, the attempt and the time left."""

from __future__ import annotations

import random

import grpc
from penstock.rpc.errors import Fault

FIRST_PAUSE_S = 0.1
GROWTH = 3.0
MAX_PAUSE_S = 5.0


def retry_pause_s(
    fault: Fault, attempt: int, retries: int, left_s: float, rng: random.Random
) -> float | None:
    """Seconds to wait before the next attempt, or None for no further attempt.

    Only UNAVAILABLE is retried: the router has already done what can be done about other faults.
    The pause grows with each attempt, is jittered so that callers do not return at the same time,
    and is never shorter than the server asks for.

    Args:
        fault: what the attempt failed with.
        attempt: number of the failed attempt, counted from 0.
        retries: number of further attempts allowed.
        left_s: seconds until the call's deadline; a longer pause is not begun.
        rng: for the jitter.
    """
    if fault.code is not grpc.StatusCode.UNAVAILABLE or attempt >= retries:
        return None
    backoff_s = min(FIRST_PAUSE_S * GROWTH ** min(attempt, 30), MAX_PAUSE_S)
    pause_s = fault.retry_after_s + backoff_s * rng.uniform(0.5, 1.0)
    return pause_s if pause_s < left_s else None
