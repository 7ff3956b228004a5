"""The response to a look-up: the answer, the receipt, and what the look-up saved."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.api.common.v1 import common_pb2
from penstock.cache.lookups.semantic_lookup import NOT_ASKED, SemanticResult
from penstock.cache.storage.entry_store import Entry

EXACT = common_pb2.CACHE_OUTCOME_EXACT_HIT
SEMANTIC = common_pb2.CACHE_OUTCOME_SEMANTIC_HIT
MISS = common_pb2.CACHE_OUTCOME_MISS
COALESCED = common_pb2.CACHE_OUTCOME_COALESCED
SEMANTIC_TECHNIQUE = "semantic_cache"
TECHNIQUES = {EXACT: "exact_cache", SEMANTIC: SEMANTIC_TECHNIQUE, COALESCED: "coalesced"}


@dataclass(frozen=True, slots=True)
class LookupResult:
    """How a look-up ended.

    `outcome` and `rule` are what the receipt says; `entry` is the one served, None for a miss.
    """

    outcome: common_pb2.CacheOutcome
    rule: str
    entry: Entry | None
    semantic: SemanticResult = NOT_ASKED


def response_of(
    result: LookupResult, now_ms: int, lookup_ms: float, lookup_microusd: int
) -> pb.LookUpResponse:
    """The response, without a token.

    `lookup_microusd` is the cost of a semantic look-up, charged only where one was made.
    """
    response = pb.LookUpResponse(receipt=_receipt(result, lookup_ms, lookup_microusd))
    if result.entry is not None:
        response.result.CopyFrom(result.entry.result)
        response.receipt.entry_id = result.entry.key
        response.receipt.age_ms = result.entry.age_ms(now_ms)
        response.stale = result.outcome == EXACT and result.entry.is_stale(now_ms)
    saving = _saving(result, response.receipt)
    if saving is not None:
        response.savings.append(saving)
    return response


def _receipt(
    result: LookupResult, lookup_ms: float, lookup_microusd: int
) -> common_pb2.CacheReceipt:
    receipt = common_pb2.CacheReceipt(outcome=result.outcome, rule=result.rule, lookup_ms=lookup_ms)
    candidate = result.semantic.candidate
    if candidate is not None:
        receipt.similarity = max(0.0, candidate.decision.similarity)
        receipt.confidence = candidate.decision.probability
        receipt.embed_ms = candidate.embed_ms
        receipt.cost_microusd = lookup_microusd
        receipt.scope_id = result.semantic.scope_key
    return receipt


def _saving(result: LookupResult, receipt: common_pb2.CacheReceipt) -> common_pb2.Saving | None:
    """What the look-up saved, less its cost; negative for a miss with a semantic look-up, None for
    one without.
    """
    if result.entry is not None:
        saved_ms = result.entry.result.compute_ms - receipt.lookup_ms
        return common_pb2.Saving(
            technique=TECHNIQUES[result.outcome],
            microusd=result.entry.paid_microusd - receipt.cost_microusd,
            saved_ms=max(saved_ms, -receipt.lookup_ms),
        )
    if result.semantic.candidate is None:
        return None
    return common_pb2.Saving(
        technique=SEMANTIC_TECHNIQUE,
        microusd=-receipt.cost_microusd,
        saved_ms=-receipt.lookup_ms,
    )
