"""Reports on semantic scopes: audited precision, and what other thresholds would have served."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.cache.semantic.scopes import ScopeState
from penstock.cache.semantic.threshold import precision_of
from penstock.rpc.call import Principal
from penstock.rpc.errors import not_found
from penstock.tasks.answer_keys import covers


@dataclass(frozen=True, slots=True)
class AuditSummary:
    """The share of audited hits that were right, the lower end of its 95 % interval, and the number
    of audits.
    """

    precision: float
    precision_low: float
    audits: int


def audit_summary(scopes: Iterable[ScopeState]) -> AuditSummary:
    """The audits of all these scopes together."""
    thresholds = [scope.policy.threshold for scope in scopes]
    audits = sum(threshold.audit_count for threshold in thresholds)
    right = sum(threshold.right_audit_count for threshold in thresholds)
    precision, precision_low = precision_of(right, audits)
    return AuditSummary(precision, precision_low, audits)


def scopes_of(
    scopes: Iterable[ScopeState], principal: Principal, wanted: pb.Scope
) -> list[ScopeState]:
    """The scopes that a principal covers and that match every field set in `wanted`.

    A model without a revision matches all its revisions.
    """
    return [
        scope
        for scope in scopes
        if covers(principal, scope.tenant)
        and wanted.namespace in ("", scope.namespace)
        and wanted.model in ("", scope.model, scope.model.partition("@")[0])
        and wanted.context_sha256 in (b"", scope.context_sha256)
    ]


def trade_off(scopes: Sequence[ScopeState]) -> pb.GetTradeOffResponse:
    """The trade-off of the scope with most entries.

    Raises:
        Fault: NOT_FOUND without scopes.
    """
    largest = max(scopes, key=len, default=None)
    if largest is None:
        raise not_found(
            "scope", "no semantic scope of this tenant that matches it has learnt anything yet"
        )
    threshold = largest.policy.threshold
    points = [
        pb.TradeOffPoint(
            threshold=point.threshold, hit_rate=point.hit_rate, error_rate=point.error_rate
        )
        for point in threshold.trade_off()
    ]
    return pb.GetTradeOffResponse(points=points, threshold=threshold.value)
