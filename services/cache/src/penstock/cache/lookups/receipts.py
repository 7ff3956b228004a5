"""Receipts and savings of look-ups. Plain."""

from __future__ import annotations

from penstock.api.common.v1 import common_pb2
from penstock.cache.lookups.tickets import LookupTicket
from penstock.cache.storage.entry_store import Entry

EXACT, SEMANTIC = common_pb2.CACHE_OUTCOME_EXACT_HIT, common_pb2.CACHE_OUTCOME_SEMANTIC_HIT
MISS, COALESCED = common_pb2.CACHE_OUTCOME_MISS, common_pb2.CACHE_OUTCOME_COALESCED
SEMANTIC_CACHE = "semantic_cache"
TECHNIQUES = {EXACT: "exact_cache", SEMANTIC: SEMANTIC_CACHE, COALESCED: "coalesced"}


def receipt_of(
    ticket: LookupTicket, outcome: int, rule: str, lookup_ms: float, cost_microusd: int
) -> common_pb2.CacheReceipt:
    """What was decided.

    `cost_microusd`: of a look-up that asks for likeness; booked only where this one did.
    """
    receipt = common_pb2.CacheReceipt(rule=rule, lookup_ms=lookup_ms)
    receipt.outcome = outcome  # type: ignore[assignment]
    if ticket.candidate is not None:
        verdict = ticket.candidate.verdict
        receipt.similarity, receipt.confidence = max(0.0, verdict.similarity), verdict.probability
        receipt.embed_ms, receipt.cost_microusd = ticket.candidate.embed_ms, cost_microusd
        receipt.scope_id = ticket.scope_key
    return receipt


def saving_of(receipt: common_pb2.CacheReceipt, entry: Entry | None) -> common_pb2.Saving | None:
    """What the look-up saved, less what it cost; negative for a miss that asked for likeness; None
    for one that did not.
    """
    if entry is not None:
        saved_ms = max(entry.result.compute_ms - receipt.lookup_ms, -receipt.lookup_ms)
        microusd = entry.paid_microusd - receipt.cost_microusd
        return common_pb2.Saving(
            technique=TECHNIQUES[receipt.outcome], microusd=microusd, saved_ms=saved_ms
        )
    if not receipt.scope_id:
        return None
    return common_pb2.Saving(
        technique=SEMANTIC_CACHE, microusd=-receipt.cost_microusd, saved_ms=-receipt.lookup_ms
    )
