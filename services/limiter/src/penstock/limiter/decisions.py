"""What is asked of the ledger and what it answers.

Values only; the rules are `ledger.lua`'s, which runs in the store.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from penstock.api.limiter.v1 import limiter_pb2 as pb

UNBOUNDED = 2**53 - 1
"""A lease's share of what no rule counts."""
NEVER, STALE_WINDOWS = pb.VERDICT_NEVER, 99
"""STALE: the counters' windows are not those of the store's time; it is in `available`, in
milliseconds.
"""

Vector = list[int]
"""Requests, tokens, micro-dollars."""


@dataclass(frozen=True)
class Reservation:
    """What is asked of a path: the most it may cost, what it usually costs, what stays spent if
    nobody settles.
    """

    most: Vector
    usual: Vector
    least: Vector
    ttl_ms: int
    priority: int = 2
    unpriced: bool = False
    lease: bool = False
    share: float = 1.0


class Ruling(NamedTuple):
    """What a question to the books comes to."""

    verdict: int
    at: int = -1
    """Index of the counter that decided; -1 for none."""
    retry_ms: int = 0
    available: int = 0
    granted: tuple[int, int, int] = (0, 0, 0)
    tight: bool = False
    alerts: tuple[tuple[int, int], ...] = ()
    """Counters that newly passed an alert share, with the share in thousandths."""
    rules: tuple[str, ...] = ()
    """Names that `at` and `alerts` point to, where the asker has not given the path."""


class CounterUsage(NamedTuple):
    """State of one counter."""

    limit: int
    committed: int
    held: int
    ends_ms: int
