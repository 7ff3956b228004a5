"""Requests of the cache, checked, and the response to a look-up: the answer, the receipt, and what
the look-up saved.

Each check raises INVALID_ARGUMENT for the first field that is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.cache.lookups.semantic_lookup import NOT_ASKED, SemanticResult
from penstock.cache.storage.entries import Entry
from penstock.rpc.call import Call
from penstock.rpc.errors import invalid
from penstock.tasks.answer_keys import exact_key

MAX_ANSWERS = 1_000
MIN_TOKEN_BYTES = 12
MAX_TOKEN_BYTES = 32
TAG_SEPARATOR = "\x1f"
EXACT = common_pb2.CACHE_OUTCOME_EXACT_HIT
SEMANTIC = common_pb2.CACHE_OUTCOME_SEMANTIC_HIT
MISS = common_pb2.CACHE_OUTCOME_MISS
COALESCED = common_pb2.CACHE_OUTCOME_COALESCED
SEMANTIC_TECHNIQUE = "semantic_cache"
TECHNIQUES = {EXACT: "exact_cache", SEMANTIC: SEMANTIC_TECHNIQUE, COALESCED: "coalesced"}


def request_key(salt: bytes, tenant: str, scope: pb.Scope, task: inference_pb2.Task) -> str:
    """The key under which a request's answer is stored, see `exact_key`."""
    body = task.SerializeToString(deterministic=True)
    return exact_key(salt, tenant, scope.namespace, scope.model, scope.context_sha256, body)


def check_caller(call: Call) -> None:
    """Check that the call has a principal, whose tenant the answers belong to."""
    if not call.principal.organisation:
        raise invalid(
            "context.principal.organisation", "is empty; the cache serves principals only"
        )


def check_look_up(request: pb.LookUpRequest) -> None:
    """Check a look-up."""
    if not request.scope.model:
        raise invalid("scope.model", "is empty")
    if request.token and not MIN_TOKEN_BYTES <= len(request.token) <= MAX_TOKEN_BYTES:
        raise invalid("token", f"must have {MIN_TOKEN_BYTES} to {MAX_TOKEN_BYTES} bytes")
    if request.task.WhichOneof("task") is None:
        raise invalid("task", "is empty")
    if request.HasField("max_error_rate") and not 0 <= request.max_error_rate <= 1:
        raise invalid("max_error_rate", "must lie between 0 and 1")
    _check_not_negative(request.max_age_ms, "max_age_ms")
    _check_not_negative(request.full_price_microusd, "full_price_microusd")


def check_store(request: pb.StoreRequest) -> None:
    """Check an answer to a look-up that missed."""
    _check_not_negative(request.paid_microusd, "paid_microusd")
    _check_tags(request.tags, "tags")


def check_store_all(request: pb.StoreAllRequest) -> None:
    """Check a batch of answers; one bad answer refuses the batch."""
    if len(request.answers) > MAX_ANSWERS:
        raise invalid("answers", f"has {len(request.answers)}; at most {MAX_ANSWERS} are allowed")
    for number, answer in enumerate(request.answers):
        field = f"answers[{number}]"
        if not answer.scope.model:
            raise invalid(f"{field}.scope.model", "is empty")
        for name in ("task", "result"):
            if not answer.HasField(name):
                raise invalid(f"{field}.{name}", "is empty")
        _check_not_negative(answer.paid_microusd, f"{field}.paid_microusd")
        _check_tags(answer.tags, f"{field}.tags")


def check_feedback(request: pb.SendFeedbackRequest) -> None:
    """Check a report on an answer."""
    if not request.request_id:
        raise invalid("request_id", "is empty")


def _check_tags(tags: Iterable[str], field: str) -> None:
    """Refuse the control character with which the cache's own tags begin."""
    for number, tag in enumerate(tags):
        if TAG_SEPARATOR in tag:
            raise invalid(f"{field}[{number}]", "has the control character U+001F")


def _check_not_negative(value: int, field: str) -> None:
    if value < 0:
        raise invalid(field, "is negative")


class LookupResult(NamedTuple):
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
