"""Whether a peer is hung: it does not answer a ping, however long its work takes.

A peer that works slowly still answers pings, since they are taken off the stream beside the work. A
process that is stopped, swapped out or deadlocked does not, and whoever waits for it would wait for
the whole deadline. While somebody waits and nothing is heard, a ping is sent; where it stays
unanswered for HUNG_AFTER_S the peer counts as hung, until anything is heard of it again.

Pings become rarer the longer the same work goes on, so that long polls cost next to nothing.
"""

from __future__ import annotations

import math
from enum import Enum

from penstock.service.purity import pure

PING_AFTER_S = 0.1
"""Of silence while somebody waits, until the first ping."""
HUNG_AFTER_S = 0.25
"""Without a sign of life after a ping."""
MAX_PING_GAP_S = 2.0
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
        self._pinged = False

    def sent(self, now: float) -> bool:
        """Somebody waits for a new item; True where the next check is due sooner for it."""
        self._gap_s = PING_AFTER_S
        if self._pinged or self.is_hung or self.check_at_s <= now + PING_AFTER_S:
            return False
        self.check_at_s = now + PING_AFTER_S
        return True

    def heard(self, now: float) -> None:
        """A frame has come."""
        self.is_hung = self._pinged = False
        if not math.isinf(self.check_at_s):
            self.check_at_s = now + self._gap_s

    def check(self, now: float, waiting: bool) -> Check:
        """What to do at `check_at_s`; `waiting`: whether anybody waits for the peer."""
        due_s, late = self.check_at_s, now > self.check_at_s + LATE_S
        if now < due_s:
            return Check.NOTHING
        if self._pinged and not late:
            self.is_hung, self.check_at_s = True, math.inf
            return Check.HUNG
        if self._pinged:
            self.check_at_s = now + HUNG_AFTER_S
            return Check.NOTHING
        if not waiting:
            self.check_at_s = math.inf
            return Check.NOTHING
        self._pinged, self.check_at_s = True, now + HUNG_AFTER_S
        self._gap_s = next_gap_s(self._gap_s)
        return Check.PING


@pure
def next_gap_s(gap_s: float) -> float:
    """Seconds of silence until the next ping, twice as long each time."""
    return min(2.0 * gap_s, MAX_PING_GAP_S)
