"""What the semantic tier can say of itself: audited precision, and what other thresholds would have done."""

from __future__ import annotations

from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.cache.tier import SemanticTier
from penstock.core.errors import not_found


def audited(tier: SemanticTier | None) -> pb.GetStatsResponse:
    """Precision over the audits of every scope, and the lowest bound among them."""
    thresholds = [held.learnt.threshold for held in tier.scopes()] if tier else []
    audits = sum(threshold.audits for threshold in thresholds)
    right = sum(threshold.audited_right for threshold in thresholds)
    low = min((threshold.precision()[1] for threshold in thresholds if threshold.audits), default=0.0)
    return pb.GetStatsResponse(
        audited_precision=right / audits if audits else 0.0, audited_precision_low=low, audits=audits
    )


def trade_off(tier: SemanticTier | None, organisation: str) -> pb.GetTradeOffResponse:
    """The curve of an organisation's largest scope, or of the largest of all for nobody. Raises NOT_FOUND where there is none."""
    own = [one for one in (tier.scopes() if tier else []) if organisation in ("", one.organisation)]
    held = max(own, key=lambda one: len(one.index), default=None)
    if held is None:
        raise not_found("scope", "no semantic scope has learnt anything yet")
    points = [
        pb.TradeOffPoint(threshold=point.threshold, hit_rate=point.hit_rate, error_rate=point.error_rate)
        for point in held.learnt.threshold.trade_off()
    ]
    return pb.GetTradeOffResponse(points=points, threshold=held.learnt.threshold.theta)
