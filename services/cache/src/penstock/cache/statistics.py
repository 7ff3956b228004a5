"""Statistics of the cache: totals of look-ups, refusals and savings for each tenant, the same as
metrics, and the answers to GetStats and GetTradeOff.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.cache.semantic.report import AuditSummary, audit_summary, scopes_of, trade_off
from penstock.cache.semantic.semantic_cache import SemanticCache
from penstock.cache.storage.entry_store import EntryStore
from penstock.otel.telemetry import Telemetry
from penstock.rpc.call import Principal
from penstock.service.bounded_map import BoundedMap
from penstock.tasks.answer_keys import covers, tenant_of

MAX_OWNERS = 10_000
"""Pairs of tenant and namespace with totals of their own; beyond, the one changed longest ago
leaves.
"""


@dataclass
class Totals:
    """Totals since the start. Savings are net of what semantic look-ups cost."""

    lookups_by_rule: Counter[str] = field(default_factory=Counter)
    refusals_by_reason: Counter[str] = field(default_factory=Counter)
    hits: int = 0
    saved_microusd: int = 0
    saved_ms: float = 0.0

    def add(self, other: Totals) -> None:
        """Add other totals to these."""
        self.lookups_by_rule.update(other.lookups_by_rule)
        self.refusals_by_reason.update(other.refusals_by_reason)
        self.hits += other.hits
        self.saved_microusd += other.saved_microusd
        self.saved_ms += other.saved_ms


class TenantTotals:
    """Totals of all tenants together, and of each tenant and namespace."""

    def __init__(self) -> None:
        self.all = Totals()
        self._by_owner: BoundedMap[tuple[str, str], Totals] = BoundedMap(MAX_OWNERS)

    def record_lookup(self, tenant: str, namespace: str, rule: str, *, is_hit: bool) -> None:
        """Count a look-up by the rule that decided it."""
        for totals in (self.all, self._of_owner(tenant, namespace)):
            totals.lookups_by_rule[rule] += 1
            totals.hits += is_hit

    def record_refusal(self, tenant: str, namespace: str, reason: str) -> None:
        """Count an answer that was not stored, or not learnt from."""
        for totals in (self.all, self._of_owner(tenant, namespace)):
            totals.refusals_by_reason[reason] += 1

    def record_saving(
        self, tenant: str, namespace: str, saved_microusd: int, saved_ms: float
    ) -> None:
        """Add what a look-up saved, or cost where that is negative."""
        for totals in (self.all, self._of_owner(tenant, namespace)):
            totals.saved_microusd += saved_microusd
            totals.saved_ms += saved_ms

    def tenants(self, principal: Principal) -> set[str]:
        """The tenants with totals that a principal covers."""
        return {tenant for tenant, _ in self._by_owner if covers(principal, tenant)}

    def of(self, principal: Principal, namespace: str) -> Totals:
        """The totals of all that a principal covers, in one namespace or, where it is empty,
        all.
        """
        if not principal.organisation and not namespace:
            return self.all
        total = Totals()
        for (tenant, name), totals in self._by_owner.items():
            if covers(principal, tenant) and namespace in ("", name):
                total.add(totals)
        return total

    def _of_owner(self, tenant: str, namespace: str) -> Totals:
        totals = self._by_owner.get((tenant, namespace))
        if totals is None:
            totals = Totals()
            self._by_owner.put((tenant, namespace), totals)
        return totals


class CacheStatistics:
    """Counts what happens, exports it as metrics, and reports it to callers."""

    def __init__(
        self, entries: EntryStore, semantic_cache: SemanticCache | None, telemetry: Telemetry
    ) -> None:
        self.totals = TenantTotals()
        self._entries = entries
        self._semantic_cache = semantic_cache
        self._lookups = telemetry.counter("penstock.cache.lookups", "{lookup}", "Look-ups by rule")
        self._refused = telemetry.counter(
            "penstock.cache.refused",
            "{answer}",
            "Answers that were not stored, or not learnt from, by reason",
        )
        self._export_gauges(telemetry)

    def record_lookup(self, tenant: str, namespace: str, rule: str, *, is_hit: bool) -> None:
        """Count a look-up by the rule that decided it."""
        self.totals.record_lookup(tenant, namespace, rule, is_hit=is_hit)
        self._lookups.add(1, {"rule": rule})

    def record_refusal(self, tenant: str, namespace: str, reason: str) -> None:
        """Count an answer that was not stored, or not learnt from."""
        self.totals.record_refusal(tenant, namespace, reason)
        self._refused.add(1, {"reason": reason})

    def record_saving(
        self, tenant: str, namespace: str, saved_microusd: int, saved_ms: float
    ) -> None:
        """Add what a look-up saved, or cost where that is negative."""
        self.totals.record_saving(tenant, namespace, saved_microusd, saved_ms)

    async def report(self, principal: Principal, namespace: str) -> pb.GetStatsResponse:
        """What GetStats answers for all that a principal covers."""
        totals = self.totals.of(principal, namespace)
        audits = await self._audits_of(principal, namespace)
        size_bytes = self._entries.size_bytes
        count = len(self._entries)
        if principal.organisation:
            tenants = {tenant_of(principal), *self.totals.tenants(principal)}
            size_bytes, count = self._entries.size_of(tenants)
        return pb.GetStatsResponse(
            lookups=totals.lookups_by_rule,
            audited_precision=audits.precision,
            audited_precision_low=audits.precision_low,
            audits=audits.audits,
            bytes=size_bytes,
            entries=count,
            saved_microusd=totals.saved_microusd,
            saved_ms=totals.saved_ms,
            refused=totals.refusals_by_reason,
            hits=totals.hits,
        )

    async def trade_off(self, principal: Principal, scope: pb.Scope) -> pb.GetTradeOffResponse:
        """What GetTradeOff answers for the largest matching scope.

        Raises:
            Fault: NOT_FOUND where no scope matches.
        """
        if self._semantic_cache is None:
            return trade_off(())
        return await self._semantic_cache.read(
            lambda scopes: trade_off(scopes_of(scopes, principal, scope))
        )

    async def _audits_of(self, principal: Principal, namespace: str) -> AuditSummary:
        if self._semantic_cache is None:
            return audit_summary(())
        wanted = pb.Scope(namespace=namespace)
        return await self._semantic_cache.read(
            lambda scopes: audit_summary(scopes_of(scopes, principal, wanted))
        )

    def _audits(self) -> AuditSummary:
        if self._semantic_cache is None:
            return audit_summary(())
        return audit_summary(self._semantic_cache.loaded_scopes)

    def _export_gauges(self, telemetry: Telemetry) -> None:
        gauge = telemetry.gauge
        entries = self._entries
        totals = self.totals.all
        gauge("penstock.cache.bytes", "By", "Bytes of all entries", lambda: entries.size_bytes)
        gauge("penstock.cache.entries", "{entry}", "Number of entries", lambda: len(entries))
        gauge(
            "penstock.cache.saved_microusd",
            "uUSD",
            "Saved by hits, net of what semantic look-ups cost",
            lambda: totals.saved_microusd,
        )
        gauge(
            "penstock.cache.saved_ms",
            "ms",
            "Saved by hits, net of look-ups",
            lambda: totals.saved_ms,
        )
        gauge(
            "penstock.cache.audits",
            "{audit}",
            "Would-be hits that were called all the same",
            lambda: self._audits().audits,
        )
        gauge(
            "penstock.cache.audited_precision",
            "1",
            "Share of audited hits that were right",
            lambda: self._audits().precision,
        )
        gauge(
            "penstock.cache.audited_precision_low",
            "1",
            "Lower end of its 95 % interval",
            lambda: self._audits().precision_low,
        )
