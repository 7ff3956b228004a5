"""The counts of `penstock.otel.counts` as OpenTelemetry metrics.

Durations become cumulative histograms. Accounts become increments since the last export, in a scope
of their own.
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
from penstock.otel import attributes as semconv
from penstock.otel.background import background_kind
from penstock.otel.counts import Account, AccountKey, DurationHistograms, bucket_bounds_s

RPC_SCOPE = InstrumentationScope("penstock.rpc", "0.1.0")
ACCOUNTS_SCOPE = InstrumentationScope("penstock.accounts", "0.1.0")
"""The scope of increments by run and step. Their labels have many values, so telemetry adds them up
in a ledger and no time series is made of them.
"""

BOUNDS_S = bucket_bounds_s()
DURATION_METRICS = {
    "server": semconv.RPC_SERVER_DURATION,
    "client": semconv.RPC_CLIENT_DURATION,
    "internal": semconv.SPAN_DURATION,
}
"""Metric name by kind of span."""

INCREMENTS = (
    ("calls", semconv.CALLS, "{call}"),
    ("paid_microusd", semconv.PAID, "uUSD"),
    ("full_price_microusd", semconv.FULL_PRICE, "uUSD"),
    ("input_tokens", semconv.INPUT_TOKENS, "{token}"),
    ("output_tokens", semconv.OUTPUT_TOKENS, "{token}"),
    ("cached_tokens", semconv.CACHED_TOKENS, "{token}"),
    ("latency_ms", semconv.LATENCY_MS, "ms"),
    ("unbalanced", semconv.UNBALANCED, "{call}"),
)
"""(field of Account, metric name, unit)."""

SAVINGS = (
    ("saved_microusd", semconv.SAVED, "uUSD"),
    ("saved_ms", semconv.SAVED_MS, "ms"),
)
"""The same for fields that are kept by technique."""

LabelledAmount = tuple[dict[str, str], int | float]


def counts_as_metrics(
    durations: DurationHistograms,
    dropped_spans: int,
    accounts: Mapping[AccountKey, Account],
    period_ns: tuple[int, int],
) -> list[ScopeMetrics]:
    """Durations and dropped spans since the start, and the accounts since the last export.

    `period_ns` is the start of the process and now, in Unix nanoseconds.
    """
    started_ns, now_ns = period_ns
    rpc_metrics = _durations(durations, started_ns, now_ns)
    rpc_metrics.append(_dropped(dropped_spans, started_ns, now_ns))
    scopes = [ScopeMetrics(RPC_SCOPE, rpc_metrics, "")]
    if accounts:
        scopes.append(ScopeMetrics(ACCOUNTS_SCOPE, _accounts(accounts, now_ns), ""))
    return scopes


def _dropped(spans: int, started_ns: int, now_ns: int) -> Metric:
    point = NumberDataPoint({}, started_ns, now_ns, spans)
    data = Sum([point], AggregationTemporality.CUMULATIVE, is_monotonic=True)
    return Metric(semconv.DROPPED_SPANS, "spans recorded and lost", "{span}", data)


def _durations(durations: DurationHistograms, started_ns: int, now_ns: int) -> list[Metric]:
    points: dict[str, list[HistogramDataPoint]] = {}
    for (name, kind, code), row in list(durations.rows.items()):
        buckets = list(row.buckets)
        if kind == "internal":
            labels = {"penstock.span": name}
        else:
            labels = {semconv.RPC_SYSTEM: "grpc", semconv.RPC_METHOD: name}
        labels[semconv.RPC_STATUS] = code or "OK"
        metric = DURATION_METRICS[kind]
        if background := background_kind(name):
            labels |= {semconv.BACKGROUND: background, "penstock.span.kind": kind}
            metric = semconv.BACKGROUND_DURATION
        point = HistogramDataPoint(
            labels,
            started_ns,
            now_ns,
            sum(buckets),
            row.sum_ns / 1e9,
            buckets,
            BOUNDS_S,
            0.0,
            0.0,
        )
        points.setdefault(metric, []).append(point)
    return [
        Metric(name, "how long calls took", "s", Histogram(rows, AggregationTemporality.CUMULATIVE))
        for name, rows in points.items()
    ]


def _accounts(accounts: Mapping[AccountKey, Account], now_ns: int) -> list[Metric]:
    metrics = []
    for field, name, unit in INCREMENTS:
        amounts = [(_labels(key), getattr(account, field)) for key, account in accounts.items()]
        metrics.append(_increments(name, unit, amounts, now_ns))
    for field, name, unit in SAVINGS:
        amounts = [
            ({**_labels(key), semconv.TECHNIQUE: technique}, amount)
            for key, account in accounts.items()
            for technique, amount in getattr(account, field).items()
        ]
        metrics.append(_increments(name, unit, amounts, now_ns))
    return metrics


def _increments(name: str, unit: str, amounts: Sequence[LabelledAmount], now_ns: int) -> Metric:
    """Amounts as one metric, those that are zero left out."""
    points = [
        NumberDataPoint(labels, now_ns, now_ns, amount) for labels, amount in amounts if amount
    ]
    data = Sum(points, AggregationTemporality.DELTA, is_monotonic=False)
    return Metric(name, "since the last export", unit, data)


def _labels(key: AccountKey) -> dict[str, str]:
    labels = {
        semconv.TENANT: key.tenant,
        semconv.RUN: key.run_id,
        semconv.STEP: key.step,
        semconv.MODEL: key.model,
        semconv.CACHE_OUTCOME: key.cache,
        semconv.TIER: key.tier,
    }
    return {name: value for name, value in labels.items() if value}
