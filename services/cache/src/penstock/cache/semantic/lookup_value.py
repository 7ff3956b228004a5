"""Whether likeness may be asked about: does it save more than it costs, and has this caller not
asked too often? Plain, bounded.
"""

from __future__ import annotations

from collections import OrderedDict

HIT_PRIOR, PRIOR_WEIGHT = 0.3, 20
MIN_HIT_RATE = 0.05
"""A scope that has not hit so far is still given this much, or it would never be asked again."""
MAX_SCOPES = 20_000
MAX_TENANTS = 20_000


class LookupValue:
    """Hits and look-ups of each scope."""

    def __init__(self) -> None:
        self._scopes: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def asked(self, scope_key: str, hit: bool) -> None:
        """A look-up in a scope has ended."""
        hits, asked = self._scopes.pop(scope_key, (0, 0))
        self._scopes[scope_key] = (hits + hit, asked + 1)
        if len(self._scopes) > MAX_SCOPES:
            self._scopes.popitem(last=False)

    def pays(self, scope_key: str, price_microusd: int, cost_microusd: int) -> bool:
        """True where the scope's hit rate so far times the price is more than a look-up costs."""
        hits, asked = self._scopes.get(scope_key, (0, 0))
        rate = (hits + HIT_PRIOR * PRIOR_WEIGHT) / (asked + PRIOR_WEIGHT)
        return max(rate, MIN_HIT_RATE) * price_microusd > cost_microusd


class ProbeLimiter:
    """A token bucket of one second's worth for each tenant: guessing what others have asked must be
    slow.
    """

    def __init__(self) -> None:
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def may(self, tenant: str, rate: float, now: float) -> bool:
        """Take one look-up out of the tenant's bucket; false where it is empty.

        A bucket that was not used for longest is full again.
        """
        level, at = self._levels.pop(tenant, (rate, now))
        level = min(rate, level + (now - at) * rate)
        self._levels[tenant] = (level - 1.0 if level >= 1.0 else level, now)
        if len(self._levels) > MAX_TENANTS:
            self._levels.popitem(last=False)
        return level >= 1.0
