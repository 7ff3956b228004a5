"""Answers that were served and may be reported as wrong: how many are remembered."""

from __future__ import annotations

from penstock.cache.lookups.pending import MAX_SERVED, PendingLookups, ServedAnswer
from penstock.service.clock import SystemClock


def test_beyond_the_bound_the_oldest_can_no_longer_be_reported() -> None:
    pending = PendingLookups(SystemClock())
    for number in range(MAX_SERVED + 1):
        pending.served.put(str(number), ServedAnswer("acme", "key", "scope", "", 0.0))
    assert len(pending.served) == MAX_SERVED
    assert pending.served.get("0") is None
    assert pending.served.get("1") is not None
