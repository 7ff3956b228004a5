"""What the semantic tier can say of itself: audited precision, and what other thresholds would have
done. Plain.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.cache.semantic.scope_state import ScopeState
from penstock.cache.semantic.threshold import precision_of
from penstock.cache.storage.tally import belongs
from penstock.rpc.call import Principal
from penstock.rpc.errors import not_found


@dataclass(frozen=True, slots=True)
class AuditSummary:
    """Share of audited hits that were right, the lower end of its 95 % interval, and the audits
    that it rests on.
    """

    precision: float
    low: float
    audits: int


def audit_summary(scopes: Iterable[ScopeState]) -> AuditSummary:
    """The audits of all these scopes together."""
    thresholds = [state.policy.threshold for state in scopes]
    audits = sum(threshold.audits for threshold in thresholds)
    return AuditSummary(
        *precision_of(sum(threshold.audited_right for threshold in thresholds), audits), audits
    )


def scopes_of(
    scopes: Iterable[ScopeState], principal: Principal, scope: pb.Scope
) -> list[ScopeState]:
    """The scopes of a principal that are of this namespace, model (with its revision where one is
    said) and surroundings.
    """
    return [
        state
        for state in scopes
        if belongs(state.tenant, principal)
        and scope.namespace in ("", state.namespace)
        and scope.model in ("", state.model, state.model.partition("@")[0])
        and scope.context_sha256 in (b"", state.context)
    ]


def trade_off(scopes: Sequence[ScopeState]) -> pb.GetTradeOffResponse:
    """The curve of the largest of the scopes. Raises NOT_FOUND where there is none."""
    state = max(scopes, key=lambda one: len(one.index), default=None)
    if state is None:
        raise not_found("scope", "no semantic scope of it has learnt anything yet")
    points = [
        pb.TradeOffPoint(
            threshold=point.threshold, hit_rate=point.hit_rate, error_rate=point.error_rate
        )
        for point in state.policy.threshold.trade_off()
    ]
    return pb.GetTradeOffResponse(points=points, threshold=state.policy.threshold.theta)
