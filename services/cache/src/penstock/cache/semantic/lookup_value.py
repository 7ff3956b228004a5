"""May a semantic look-up be made? Only where it is expected to save more than it costs, and within
each tenant's rate.
"""

from __future__ import annotations

from penstock.service.bounded_map import BoundedMap

PRIOR_HIT_RATE = 0.3
PRIOR_LOOKUPS = 20
"""Weight of the prior, in look-ups."""
MIN_HIT_RATE = 0.05
"""The lowest hit rate assumed, so that a scope without hits so far is still asked for expensive
calls.
"""
MAX_SCOPES = 20_000
MAX_TENANTS = 20_000


class LookupValue:
    """What semantic look-ups are worth in each scope, by their hit rate so far."""

    def __init__(self) -> None:
        self._hits_and_lookups: BoundedMap[str, tuple[int, int]] = BoundedMap(MAX_SCOPES)

    def record(self, scope_key: str, *, is_hit: bool) -> None:
        """Count a look-up in a scope."""
        hits, lookups = self._hits_and_lookups.peek(scope_key, (0, 0))
        self._hits_and_lookups.put(scope_key, (hits + is_hit, lookups + 1))

    def exceeds_cost(self, scope_key: str, price_microusd: int, cost_microusd: int) -> bool:
        """Whether the expected saving, hit rate times price, is larger than a look-up's cost."""
        hits, lookups = self._hits_and_lookups.peek(scope_key, (0, 0))
        hit_rate = (hits + PRIOR_HIT_RATE * PRIOR_LOOKUPS) / (lookups + PRIOR_LOOKUPS)
        return max(hit_rate, MIN_HIT_RATE) * price_microusd > cost_microusd


class ProbeLimiter:
    """A token bucket for each tenant that holds one second's worth of semantic look-ups.

    It keeps a caller from finding out quickly, by trying similar prompts, what others of its tenant
    have asked.
    """

    def __init__(self) -> None:
        self._buckets: BoundedMap[str, tuple[float, float]] = BoundedMap(MAX_TENANTS)
        """By tenant: look-ups left, and when that was so."""

    def take(self, tenant: str, rate_per_s: float, now: float) -> bool:
        """Take a look-up from the tenant's bucket; False where it is empty.

        A bucket that was evicted is full again.
        """
        left, at = self._buckets.peek(tenant, (rate_per_s, now))
        left = min(rate_per_s, left + (now - at) * rate_per_s)
        is_allowed = left >= 1.0
        self._buckets.put(tenant, (left - 1.0 if is_allowed else left, now))
        return is_allowed
