"""What the semantic tier can say of itself: audited precision, and what other thresholds would have
done. Plain.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.cache.semantic.scope_state import Held
from penstock.cache.semantic.threshold import precision_of
from penstock.cache.storage.tally import belongs
from penstock.rpc.call import Principal
from penstock.rpc.errors import not_found


@dataclass(frozen=True, slots=True)
class Audited:
    """Share of audited hits that were right, the lower end of its 95 % interval, and the audits
    that it rests on.
    """

    precision: float
    low: float
    audits: int


def audited(scopes: Iterable[Held]) -> Audited:
    """The audits of all these scopes together."""
    thresholds = [held.learnt.threshold for held in scopes]
    audits = sum(threshold.audits for threshold in thresholds)
    return Audited(
        *precision_of(sum(threshold.audited_right for threshold in thresholds), audits), audits
    )


def owned(scopes: Iterable[Held], principal: Principal, scope: pb.Scope) -> list[Held]:
    """The scopes of a principal that are of this namespace, model (with its revision where one is
    said) and surroundings.
    """
    return [
        held
        for held in scopes
        if belongs(held.tenant, principal)
        and scope.namespace in ("", held.namespace)
        and scope.model in ("", held.model, held.model.partition("@")[0])
        and scope.context_sha256 in (b"", held.context)
    ]


def trade_off(scopes: Sequence[Held]) -> pb.GetTradeOffResponse:
    """The curve of the largest of the scopes. Raises NOT_FOUND where there is none."""
    held = max(scopes, key=lambda one: len(one.index), default=None)
    if held is None:
        raise not_found("scope", "no semantic scope of it has learnt anything yet")
    points = [
        pb.TradeOffPoint(
            threshold=point.threshold, hit_rate=point.hit_rate, error_rate=point.error_rate
        )
        for point in held.learnt.threshold.trade_off()
    ]
    return pb.GetTradeOffResponse(points=points, threshold=held.learnt.threshold.theta)
