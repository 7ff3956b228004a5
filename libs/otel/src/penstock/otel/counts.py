"""What is counted for every call, recorded or not: how long spans took, and what calls cost and
saved. No export lives here.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from penstock.api.common.v1 import common_pb2
from penstock.otel import attributes as names
from penstock.rpc.call import Call

BUCKETS_PER_DOUBLING = 4
"""Buckets for each doubling of a duration: a value is known within a fifth."""

MIN_BITS = 13
"""Durations below 2**13 ns, about 8 µs, share the first bucket."""

BUCKETS = (36 - MIN_BITS) * BUCKETS_PER_DOUBLING + 2
"""The last bucket takes everything above 2**36 ns, 69 s."""

MAX_ACCOUNTS = 10_000
"""Different (tenant, run, step, model, …) between two exports; beyond it runs and steps are no
longer told apart.
"""


def bucket_bounds_s() -> list[float]:
    """Upper bounds of all buckets but the last, in seconds."""
    edges = [
        2.0 ** (MIN_BITS + step // BUCKETS_PER_DOUBLING)
        * (1 + step % BUCKETS_PER_DOUBLING / BUCKETS_PER_DOUBLING)
        for step in range(BUCKETS - 1)
    ]
    return [edge / 1e9 for edge in edges]


def bucket_index(duration_ns: int) -> int:
    """Index of the bucket of a duration: four to a doubling, found by shifting and no logarithm."""
    bits = duration_ns.bit_length()
    if bits <= MIN_BITS:
        return 0
    index = (bits - MIN_BITS - 1) * BUCKETS_PER_DOUBLING + ((duration_ns >> (bits - 3)) & 3) + 1
    return index if index < BUCKETS else BUCKETS - 1


class Duration:
    """The distribution of one span name, kind and code."""

    __slots__ = ("buckets", "count", "sum_ns")

    def __init__(self) -> None:
        self.count = 0
        self.sum_ns = 0
        self.buckets = [0] * BUCKETS


class Durations:
    """Distributions of all spans by (name, kind, code).

    Written by the event loop, read by the exporter's thread.
    """

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str, str], Duration] = {}

    def add(self, name: str, kind: str, code: str, duration_ns: int) -> None:
        row = self.rows.get((name, kind, code))
        if row is None:
            row = self.rows[name, kind, code] = Duration()
        row.count += 1
        row.sum_ns += duration_ns
        row.buckets[bucket_index(duration_ns)] += 1


class AccountKey(NamedTuple):
    """What money and tokens are told apart by."""

    tenant: str
    run_id: str
    step: str
    model: str
    cache: str
    tier: str


@dataclass(slots=True)
class Account:
    """Sums of one key since the last export."""

    calls: int = 0
    paid_microusd: int = 0
    full_price_microusd: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    latency_ms: float = 0.0
    unbalanced: int = 0
    saved_microusd: dict[str, int] = field(default_factory=dict)
    saved_ms: dict[str, float] = field(default_factory=dict)

    def merge(self, other: Account) -> None:
        """Add another's sums."""
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
    """Money, tokens and savings of every call since the last export, whatever was sampled."""

    def __init__(self) -> None:
        self._rows: dict[AccountKey, Account] = {}

    def add(self, call: Call, receipt: common_pb2.Receipt) -> None:
        """Count one receipt."""
        account = self._row(account_key(call, receipt))
        usage, cost = receipt.usage, receipt.cost
        paid, full_price, parts = cost.paid_microusd, cost.full_price_microusd, 0
        account.calls += 1
        account.paid_microusd += paid
        account.full_price_microusd += full_price
        account.input_tokens += usage.input_tokens
        account.output_tokens += usage.output_tokens
        account.cached_tokens += usage.cached_input_tokens
        account.latency_ms += receipt.total_ms
        for saving in receipt.savings:
            name, microusd = saving.technique, saving.microusd
            parts += microusd
            account.saved_microusd[name] = account.saved_microusd.get(name, 0) + microusd
            account.saved_ms[name] = account.saved_ms.get(name, 0.0) + saving.saved_ms
        account.unbalanced += parts != full_price - paid

    def take(self) -> dict[AccountKey, Account]:
        """The sums since the last take; counting begins anew."""
        taken, self._rows = self._rows, {}
        return taken

    def restore(self, rows: Mapping[AccountKey, Account]) -> None:
        """Count again what could not be exported."""
        for key, account in rows.items():
            self._row(key).merge(account)

    def _row(self, key: AccountKey) -> Account:
        account = self._rows.get(key)
        if account is None:
            if len(self._rows) >= MAX_ACCOUNTS:
                key = key._replace(run_id="", step="")
            account = self._rows.setdefault(key, Account())
        return account


def account_key(call: Call, receipt: common_pb2.Receipt) -> AccountKey:
    """What a receipt is counted under."""
    usage = receipt.usage
    tier = names.complexity_tier(usage.input_tokens + usage.output_tokens)
    cache = _outcome(receipt.cache.outcome)
    return AccountKey(
        call.principal.organisation, call.run_id, call.step, receipt.model, cache, tier
    )


@functools.lru_cache(maxsize=16)
def _outcome(number: int) -> str:
    if (
        number not in common_pb2.CacheOutcome.values()
        or number == common_pb2.CACHE_OUTCOME_UNSPECIFIED
    ):
        return ""
    return common_pb2.CacheOutcome.Name(number).removeprefix("CACHE_OUTCOME_").lower()


def receipt_attributes(receipt: common_pb2.Receipt) -> dict[str, str | int | float | bool]:
    """A receipt as span attributes; what it leaves empty is left out."""
    usage, route, batch = receipt.usage, receipt.route, receipt.batch
    said: dict[str, str | int | float | bool] = {
        names.REQUEST: receipt.request_id,
        names.RESPONSE_MODEL: receipt.model,
        names.INPUT_TOKENS: usage.input_tokens,
        names.OUTPUT_TOKENS: usage.output_tokens,
        names.CACHED_TOKENS: usage.cached_input_tokens,
        names.REASONING_TOKENS: usage.reasoning_tokens,
        names.TIER: names.complexity_tier(usage.input_tokens + usage.output_tokens),
        names.CACHE_OUTCOME: _outcome(receipt.cache.outcome),
        names.CACHE_RULE: receipt.cache.rule,
        names.CACHE_CONFIDENCE: receipt.cache.confidence,
        names.INSTANCE: route.instance_id,
        names.ROUTE_REASON: route.reason,
        names.ROUTE_SCORE: route.score,
        names.ATTEMPTS: route.attempts,
        names.QUEUED_MS: batch.queued_ms,
        names.BATCH_SIZE: batch.batch_size,
        names.COMPUTE_MS: receipt.compute_ms,
        names.PAID: receipt.cost.paid_microusd,
        names.FULL_PRICE: receipt.cost.full_price_microusd,
    }
    for saving in receipt.savings:
        said[f"{names.SAVED}.{saving.technique}"] = saving.microusd
        said[f"{names.SAVED_MS}.{saving.technique}"] = saving.saved_ms
    return {key: value for key, value in said.items() if value not in ("", 0)}
