"""Whether a peer is hung: it does not answer a ping, however long its work takes.

A peer that works slowly still answers pings, since they are taken off the stream beside the work. A
process that is stopped, swapped out or deadlocked does not, and whoever waits for it would wait for
the whole deadline. While somebody waits and nothing is heard, a ping is sent; where it stays
unanswered for HUNG_AFTER_S the peer counts as hung, until anything is heard of it again. On a
machine that has too much to do pings take longer, so the patience follows the slowest of late, as
TCP's retransmission timer does (RFC 6298). A peer that was heard and does not say that it answers
pings is waited for.

Pings become rarer the longer the same work goes on, so that long polls cost next to nothing.
"""

from __future__ import annotations

import math
from enum import Enum

from penstock.service.purity import pure

PING_AFTER_S = 0.1
"""Of silence while somebody waits, until the first ping."""
HUNG_AFTER_S = 0.25
"""Without a sign of life after a ping, at least."""
FIRST_PATIENCE_S = 1.0
"""The same before anything was heard: a connection may have to be made first."""
MAX_PATIENCE_S = 2.0
PATIENCE_FACTOR = 4.0
"""Times the slowest answer of late."""
KEPT_SHARE = 0.8
"""Of the slowest answer's time, with each further answer."""
MAX_PING_GAP_S = 2.0
LARGE_BYTES_PER_S = 8e6
"""A peer that was given a request in parts may stand still for as long as it takes to receive and
read it at this speed, a tenth of what was seen on an idle machine.
"""
LATE_S = 0.1
"""A check that comes later than this says that our own process stood still: what the peer sent
meanwhile may lie unread, so the peer gets its time again.
"""


class Check(Enum):
    """What follows from looking at the clock."""

    NOTHING = "nothing"
    PING = "ping"
    HUNG = "hung"


class Liveness:
    """What is known of one peer. Times are monotonic seconds; owner: the peer's connection."""

    def __init__(self) -> None:
        self.is_hung = False
        self.check_at_s = math.inf
        """When `check` is due; infinite while nobody waits or nothing more can be learnt."""
        self._gap_s = PING_AFTER_S
        self._pinged_s: float | None = None
        self._slowest_s: float | None = None
        self._answers_pings = False

    @property
    def patience_s(self) -> float:
        """Seconds that a ping may stay unanswered."""
        if self._slowest_s is None:
            return FIRST_PATIENCE_S
        return min(max(HUNG_AFTER_S, PATIENCE_FACTOR * self._slowest_s), MAX_PATIENCE_S)

    def sent(self, now: float) -> bool:
        """Somebody waits for a new item; True where the next check is due sooner for it."""
        self._gap_s = PING_AFTER_S
        if self._pinged_s is not None or self.is_hung or self.check_at_s <= now + PING_AFTER_S:
            return False
        self.check_at_s = now + PING_AFTER_S
        return True

    def heard(self, now: float, *, answers_pings: bool = False) -> None:
        """A frame has come; `answers_pings`: it says that the peer answers pings."""
        self._answers_pings = self._answers_pings or answers_pings
        took_s = 0.0 if self._pinged_s is None or self.is_hung else now - self._pinged_s
        self._slowest_s = max(took_s, KEPT_SHARE * (self._slowest_s or 0.0))
        self.is_hung, self._pinged_s = False, None
        if not math.isinf(self.check_at_s):
            self.check_at_s = now + self._gap_s

    def check(self, now: float, waiting: bool, large_bytes: int = 0) -> Check:
        """What to do at `check_at_s`.

        Args:
            now: the time.
            waiting: whether anybody waits for the peer.
            large_bytes: of the requests in parts that it was given.
        """
        due_s, late = self.check_at_s, now > self.check_at_s + LATE_S
        if now < due_s:
            return Check.NOTHING
        if self._slowest_s is not None and not self._answers_pings:
            self.check_at_s = math.inf
            return Check.NOTHING
        if self._pinged_s is not None and not late:
            ends_s = self._pinged_s + self.patience_s + large_bytes / LARGE_BYTES_PER_S
            if now < ends_s:
                self.check_at_s = ends_s
                return Check.NOTHING
            self.is_hung, self.check_at_s = True, math.inf
            return Check.HUNG
        if self._pinged_s is not None:
            self.check_at_s = now + self.patience_s
            return Check.NOTHING
        if not waiting:
            self.check_at_s = math.inf
            return Check.NOTHING
        self._pinged_s, self.check_at_s = now, now + self.patience_s
        self._gap_s = next_gap_s(self._gap_s)
        return Check.PING


@pure
def next_gap_s(gap_s: float) -> float:
    """Seconds of silence until the next ping, twice as long each time."""
    return min(2.0 * gap_s, MAX_PING_GAP_S)
