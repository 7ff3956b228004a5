"""What the cache tells of itself as metrics: look-ups by rule, refusals by reason, what is held and
saved, how right audited hits were.
"""

from __future__ import annotations

from penstock.cache.semantic.report import AuditSummary, audit_summary
from penstock.cache.semantic.semantic_cache import SemanticCache
from penstock.cache.storage.entry_store import EntryStore
from penstock.cache.storage.tally import Tally
from penstock.otel.telemetry import Telemetry


class CacheMetrics:
    """The tally, and the counters beside it."""

    def __init__(
        self, entries: EntryStore, semantic_cache: SemanticCache | None, telemetry: Telemetry
    ) -> None:
        self.tally = Tally()
        self._entries, self._semantic_cache = entries, semantic_cache
        self._lookups = telemetry.counter("penstock.cache.lookups", "{lookup}", "Look-ups by rule")
        self._refused = telemetry.counter(
            "penstock.cache.refused", "{answer}", "Answers not kept, or not taught, by reason"
        )
        tally, entries = self.tally.all, self._entries
        for name, unit, description, read in (
            ("bytes", "By", "Bytes of entries held", lambda: entries.size_bytes),
            ("entries", "{entry}", "Entries held", lambda: len(entries)),
            (
                "saved_microusd",
                "uUSD",
                "Saved by hits, net of what asking cost",
                lambda: tally.saved_microusd,
            ),
            ("saved_ms", "ms", "Saved by hits, net of look-ups", lambda: tally.saved_ms),
            (
                "audits",
                "{audit}",
                "Hits that were called all the same",
                lambda: self._audited().audits,
            ),
            (
                "audited_precision",
                "1",
                "Share of audited hits that were right",
                lambda: self._audited().precision,
            ),
            (
                "audited_precision_low",
                "1",
                "Lower end of its 95 % interval",
                lambda: self._audited().low,
            ),
        ):
            telemetry.gauge(f"penstock.cache.{name}", unit, description, read)

    def looked_up(self, tenant: str, namespace: str, rule: str) -> None:
        """A look-up has ended by this rule."""
        self.tally.count(tenant, namespace, rule)
        self._lookups.add(1, {"rule": rule})

    def refused(self, tenant: str, namespace: str, reason: str) -> None:
        """An answer was not kept, or taught nothing."""
        self.tally.refuse(tenant, namespace, reason)
        self._refused.add(1, {"reason": reason})

    def _audited(self) -> AuditSummary:
        return audit_summary(self._semantic_cache.scopes() if self._semantic_cache else ())
