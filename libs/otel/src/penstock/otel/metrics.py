"""Our own counts as OpenTelemetry metric data: durations as histograms, accounts as increments.

Plain conversion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from penstock.otel import attributes as names
from penstock.otel.counts import Account, AccountKey, Durations, bucket_bounds_s

SCOPE = InstrumentationScope("penstock.rpc", "0.1.0")
ACCOUNTS_SCOPE = InstrumentationScope("penstock.accounts", "0.1.0")
"""The scope of increments by run and step: many label values, so a ledger sums them and no
time-series store keeps them.
"""

BOUNDS = bucket_bounds_s()
METRIC_OF_KIND = {
    "server": names.RPC_SERVER_DURATION,
    "client": names.RPC_CLIENT_DURATION,
    "internal": names.SPAN_DURATION,
}
INCREMENTS = (
    ("calls", names.CALLS, "{call}"),
    ("paid_microusd", names.PAID, "uUSD"),
    ("full_price_microusd", names.FULL_PRICE, "uUSD"),
    ("input_tokens", names.INPUT_TOKENS, "{token}"),
    ("output_tokens", names.OUTPUT_TOKENS, "{token}"),
    ("cached_tokens", names.CACHED_TOKENS, "{token}"),
    ("latency_ms", names.LATENCY_MS, "ms"),
    ("unbalanced", names.UNBALANCED, "{call}"),
)


Values = Sequence[tuple[dict[str, str], AccountKey, int | float]]


def to_scope_metrics(
    durations: Durations,
    lost: int,
    accounts: Mapping[AccountKey, Account],
    period_ns: tuple[int, int],
) -> list[ScopeMetrics]:
    """Durations and lost spans since the start, and the accounts' increments since the last
    export.
    """
    began_ns, now_ns = period_ns
    scopes = [
        ScopeMetrics(
            SCOPE, [*_durations(durations, began_ns, now_ns), _lost(lost, began_ns, now_ns)], ""
        )
    ]
    if accounts:
        scopes.append(ScopeMetrics(ACCOUNTS_SCOPE, _accounts(accounts, now_ns), ""))
    return scopes


def _lost(spans: int, began_ns: int, now_ns: int) -> Metric:
    point = NumberDataPoint({}, began_ns, now_ns, spans)
    data = Sum([point], AggregationTemporality.CUMULATIVE, is_monotonic=True)
    return Metric(names.DROPPED_SPANS, "spans recorded and lost", "{span}", data)


def _durations(durations: Durations, began_ns: int, now_ns: int) -> list[Metric]:
    points: dict[str, list[HistogramDataPoint]] = {}
    for (name, kind, code), row in list(durations.rows.items()):
        buckets, sum_s = list(row.buckets), row.sum_ns / 1e9
        metric = METRIC_OF_KIND[kind]
        said = (
            {names.RPC_SYSTEM: "grpc", names.RPC_METHOD: name}
            if kind != "internal"
            else {"penstock.span": name}
        )
        said[names.RPC_STATUS] = code or "OK"
        point = HistogramDataPoint(
            said, began_ns, now_ns, sum(buckets), sum_s, buckets, BOUNDS, 0.0, 0.0
        )
        points.setdefault(metric, []).append(point)
    told = "how long calls took"
    return [
        Metric(name, told, "s", Histogram(rows, AggregationTemporality.CUMULATIVE))
        for name, rows in points.items()
    ]


def _accounts(accounts: Mapping[AccountKey, Account], now_ns: int) -> list[Metric]:
    metrics = []
    for field, name, unit in INCREMENTS:
        values: Values = [
            ({}, key, amount)
            for key, account in accounts.items()
            if (amount := getattr(account, field))
        ]
        metrics.append(_increments(name, unit, values, now_ns))
    for field, name, unit in (
        ("saved_microusd", names.SAVED, "uUSD"),
        ("saved_ms", names.SAVED_MS, "ms"),
    ):
        saved = [
            ({names.TECHNIQUE: technique}, key, amount)
            for key, account in accounts.items()
            for technique, amount in getattr(account, field).items()
        ]
        metrics.append(_increments(name, unit, saved, now_ns))
    return metrics


def _increments(name: str, unit: str, values: Values, now_ns: int) -> Metric:
    points = [
        NumberDataPoint({**_labels(key), **more}, now_ns, now_ns, value)
        for more, key, value in values
        if value
    ]
    return Metric(
        name,
        "since the last export",
        unit,
        Sum(points, AggregationTemporality.DELTA, is_monotonic=False),
    )


def _labels(key: AccountKey) -> dict[str, str]:
    said = {
        names.TENANT: key.tenant,
        names.RUN: key.run_id,
        names.STEP: key.step,
        names.MODEL: key.model,
        names.CACHE_OUTCOME: key.cache,
        names.TIER: key.tier,
    }
    return {name: value for name, value in said.items() if value}
