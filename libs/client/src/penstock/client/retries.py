"""When to try again: a plain decision, no clock and no network."""

from __future__ import annotations

import random

import grpc
from penstock.rpc.errors import Fault

FIRST_PAUSE_S = 0.1
GROWTH = 3.0
LONGEST_PAUSE_S = 5.0


def pause_s(
    fault: Fault, attempt: int, retries: int, left_s: float, rng: random.Random
) -> float | None:
    """Seconds to wait before trying again, None for not at all.

    Only UNAVAILABLE is tried again: the router has done what can be done about everything else. The
    pause grows from attempt to attempt (`attempt` counts from 0), is jittered so that callers do
    not come back together, and is never shorter than the server asks for. No pause longer than the
    time left is begun.
    """
    if fault.code is not grpc.StatusCode.UNAVAILABLE or attempt >= retries:
        return None
    pause = min(FIRST_PAUSE_S * GROWTH ** min(attempt, 30), LONGEST_PAUSE_S) * rng.uniform(0.5, 1.0)
    wait_s = fault.retry_after_s + pause
    return wait_s if wait_s < left_s else None
