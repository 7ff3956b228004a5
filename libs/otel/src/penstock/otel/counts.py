"""What is counted for every call, sampled or not: how long spans took, and what calls cost and
saved.

Durations are counted in histograms whose buckets grow with the duration: four to each doubling, so
that any quantile is known within a fifth of its value. The bucket of a duration is found by
shifting bits, without a logarithm, because it is done for every span.

Costs are counted in accounts, one for each (tenant, run, step, model, cache outcome, tier), which
are emptied at each export.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from penstock.api.common.v1 import common_pb2, prefix_pb2
from penstock.otel import attributes as semconv
from penstock.otel.background import background_kind
from penstock.rpc.call import Call

BUCKETS_PER_DOUBLING = 4

MIN_BITS = 13
"""Durations below 2**13 ns, about 8 µs, share the first bucket."""

MAX_BITS = 36
"""Durations above 2**36 ns, about 69 s, share the last bucket."""

BUCKETS = (MAX_BITS - MIN_BITS) * BUCKETS_PER_DOUBLING + 2

MAX_ACCOUNTS = 10_000
"""Accounts between two exports; calls beyond it are counted without their run and step."""

TIERS = ((64, "short"), (512, "medium"), (4096, "long"))
"""(most tokens, complexity tier); above the last it is `huge`."""

KNOWN_BREAKS = frozenset(prefix_pb2.PrefixBreakKind.values()) - {
    prefix_pb2.PREFIX_BREAK_KIND_UNSPECIFIED
}

AttributeValue = str | int | float | bool


def bucket_bounds_s() -> list[float]:
    """Upper bounds of all buckets but the last, in seconds."""
    bounds = []
    for index in range(BUCKETS - 1):
        doublings, quarter = divmod(index, BUCKETS_PER_DOUBLING)
        bound_ns = 2.0 ** (MIN_BITS + doublings) * (1 + quarter / BUCKETS_PER_DOUBLING)
        bounds.append(bound_ns / 1e9)
    return bounds


def bucket_index(duration_ns: int) -> int:
    """The index of the bucket that a duration belongs to."""
    bits = duration_ns.bit_length()
    if bits <= MIN_BITS:
        return 0
    quarter = (duration_ns >> (bits - 3)) & 3  # the two bits after the leading one
    index = (bits - MIN_BITS - 1) * BUCKETS_PER_DOUBLING + quarter + 1
    return index if index < BUCKETS else BUCKETS - 1


class DurationHistogram:
    """How long the spans of one name, kind and code took."""

    __slots__ = ("buckets", "count", "sum_ns")

    def __init__(self) -> None:
        self.count = 0
        self.sum_ns = 0
        self.buckets = [0] * BUCKETS


class DurationHistograms:
    """A histogram for each (span name, kind, code) since the process began.

    Written on the event loop, read by the exporter's thread.
    """

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str, str], DurationHistogram] = {}

    def add(self, name: str, kind: str, code: str, duration_ns: int) -> None:
        """Count one span; `code` is empty when it did not fail."""
        row = self.rows.get((name, kind, code))
        if row is None:
            row = self.rows[name, kind, code] = DurationHistogram()
        row.count += 1
        row.sum_ns += duration_ns
        row.buckets[bucket_index(duration_ns)] += 1

    def requests(self) -> int:
        """Spans counted so far, but for background work."""
        rows = list(self.rows.items())
        return sum(row.count for (name, _, _), row in rows if not background_kind(name))


class AccountKey(NamedTuple):
    """What an account is for; a field is empty where a call does not say."""

    tenant: str
    run_id: str
    step: str
    model: str
    cache: str
    tier: str


@dataclass(slots=True)
class Account:
    """Sums over calls."""

    calls: int = 0
    paid_microusd: int = 0
    full_price_microusd: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    latency_ms: float = 0.0
    unbalanced: int = 0
    """Receipts whose savings do not add up to full price less paid."""
    saved_microusd: dict[str, int] = field(default_factory=dict)
    """By technique."""
    saved_ms: dict[str, float] = field(default_factory=dict)
    """By technique."""

    def merge(self, other: Account) -> None:
        """Add the sums of another account."""
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for technique, microusd in other.saved_microusd.items():
            self.saved_microusd[technique] = self.saved_microusd.get(technique, 0) + microusd
        for technique, saved_ms in other.saved_ms.items():
            self.saved_ms[technique] = self.saved_ms.get(technique, 0.0) + saved_ms


_SUMS = (
    "calls",
    "paid_microusd",
    "full_price_microusd",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "latency_ms",
    "unbalanced",
)


class Accounts:
    """Cost, tokens and savings of every call since the last export."""

    def __init__(self) -> None:
        self._accounts: dict[AccountKey, Account] = {}

    def add(self, call: Call, receipt: common_pb2.Receipt) -> None:
        """Count one receipt."""
        account = self._account(account_key(call, receipt))
        usage = receipt.usage
        paid = receipt.cost.paid_microusd
        full_price = receipt.cost.full_price_microusd
        account.calls += 1
        account.paid_microusd += paid
        account.full_price_microusd += full_price
        account.input_tokens += usage.input_tokens
        account.output_tokens += usage.output_tokens
        account.cached_tokens += usage.cached_input_tokens
        account.latency_ms += receipt.total_ms
        saved = 0
        for saving in receipt.savings:
            technique = saving.technique
            microusd = saving.microusd
            saved += microusd
            account.saved_microusd[technique] = account.saved_microusd.get(technique, 0) + microusd
            account.saved_ms[technique] = account.saved_ms.get(technique, 0.0) + saving.saved_ms
        account.unbalanced += saved != full_price - paid

    def drain(self) -> dict[AccountKey, Account]:
        """The accounts since the last drain; counting begins anew."""
        drained, self._accounts = self._accounts, {}
        return drained

    def restore(self, accounts: Mapping[AccountKey, Account]) -> None:
        """Count again what was drained and could not be exported."""
        for key, account in accounts.items():
            self._account(key).merge(account)

    def _account(self, key: AccountKey) -> Account:
        account = self._accounts.get(key)
        if account is None:
            if len(self._accounts) >= MAX_ACCOUNTS:
                key = key._replace(run_id="", step="")
            account = self._accounts.setdefault(key, Account())
        return account


def account_key(call: Call, receipt: common_pb2.Receipt) -> AccountKey:
    """The account that a receipt is counted in."""
    usage = receipt.usage
    return AccountKey(
        call.principal.organisation,
        call.run_id,
        call.step,
        receipt.model,
        _cache_outcome(receipt.cache.outcome),
        complexity_tier(usage.input_tokens + usage.output_tokens),
    )


@functools.lru_cache(maxsize=16)
def _cache_outcome(number: int) -> str:
    """The name of a CacheOutcome, such as `exact_hit`; empty for none and for unknown ones."""
    unspecified = number == common_pb2.CACHE_OUTCOME_UNSPECIFIED
    if unspecified or number not in common_pb2.CacheOutcome.values():
        return ""
    return common_pb2.CacheOutcome.Name(number).removeprefix("CACHE_OUTCOME_").lower()


def receipt_attributes(receipt: common_pb2.Receipt) -> dict[str, AttributeValue]:
    """A receipt as span attributes, without those that are empty or zero."""
    usage, route, batch = receipt.usage, receipt.route, receipt.batch
    attributes: dict[str, AttributeValue] = {
        semconv.REQUEST_ID: receipt.request_id,
        semconv.RESPONSE_MODEL: receipt.model,
        semconv.INPUT_TOKENS: usage.input_tokens,
        semconv.OUTPUT_TOKENS: usage.output_tokens,
        semconv.CACHED_TOKENS: usage.cached_input_tokens,
        semconv.CACHE_WRITE_TOKENS: usage.written_input_tokens,
        semconv.REASONING_TOKENS: usage.reasoning_tokens,
        semconv.TIER: complexity_tier(usage.input_tokens + usage.output_tokens),
        semconv.CACHE_OUTCOME: _cache_outcome(receipt.cache.outcome),
        semconv.CACHE_RULE: receipt.cache.rule,
        semconv.CACHE_CONFIDENCE: receipt.cache.confidence,
        semconv.INSTANCE: route.instance_id,
        semconv.ROUTE_REASON: route.reason,
        semconv.ROUTE_SCORE: route.score,
        semconv.ATTEMPTS: route.attempts,
        semconv.QUEUED_MS: batch.queued_ms,
        semconv.BATCH_SIZE: batch.batch_size,
        semconv.COMPUTE_MS: receipt.compute_ms,
        semconv.PAID: receipt.cost.paid_microusd,
        semconv.FULL_PRICE: receipt.cost.full_price_microusd,
    }
    for saving in receipt.savings:
        attributes[f"{semconv.SAVED}.{saving.technique}"] = saving.microusd
        attributes[f"{semconv.SAVED_MS}.{saving.technique}"] = saving.saved_ms
    if receipt.HasField("prefix_loss"):
        loss = receipt.prefix_loss
        attributes[semconv.PREFIX_LOSS] = _cause(loss)
        attributes[semconv.PREFIX_LOST_TOKENS] = loss.lost_tokens
        attributes[semconv.PREFIX_LOST_MICROUSD] = loss.lost_microusd
    return {key: value for key, value in attributes.items() if value not in ("", 0)}


def _cause(loss: prefix_pb2.PrefixLoss) -> str:
    """The kind of change that broke a prefix, else what became of it, such as `evicted`."""
    kind = loss.prefix_break.kind
    if kind in KNOWN_BREAKS:
        return prefix_pb2.PrefixBreakKind.Name(kind).removeprefix("PREFIX_BREAK_KIND_").lower()
    if loss.outcome in prefix_pb2.PrefixOutcome.values():
        return prefix_pb2.PrefixOutcome.Name(loss.outcome).removeprefix("PREFIX_OUTCOME_").lower()
    return ""


def complexity_tier(tokens: int) -> str:
    """The complexity tier of a call with this many tokens, input and output together."""
    return next((name for most, name in TIERS if tokens <= most), "huge")
