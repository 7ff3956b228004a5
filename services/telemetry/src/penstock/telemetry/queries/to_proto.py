"""The store's values as messages of `penstock.api.telemetry.v1`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.otel import attributes as semconv
from penstock.otel.background import background_kind
from penstock.otel.counts import TIERS
from penstock.telemetry.detection.incidents import Incident
from penstock.telemetry.detection.quality import QualityMeasure
from penstock.telemetry.spans.critical_path import critical_ns_by_span, critical_path
from penstock.telemetry.spans.spans import SpanTree, SpanView, error_origin, is_waited_on
from penstock.telemetry.window.distributions import Distribution
from penstock.telemetry.window.histograms import Range, quantile_of
from penstock.telemetry.window.series import Series, SeriesWindow, series_labels
from penstock.telemetry.window.settled_traces import Edge, TraceSummary, summarise_trace

if TYPE_CHECKING:
    from penstock.telemetry.export.forwarding import Forwarder
    from penstock.telemetry.store import TelemetryStore

SPARK_STEPS = 12
"""Steps of a sparkline: five seconds each in a minute, so that every sender reports in each."""


def trace_summary(row: TraceSummary) -> pb.TraceSummary:
    """A trace in one row."""
    return pb.TraceSummary(
        trace_id=row.trace_id.hex(),
        name=row.name,
        service=row.service,
        start_unix_ms=row.start_ns // 1_000_000,
        duration_ms=row.duration_ns / 1e6,
        spans=row.spans,
        services=row.services,
        error=row.error,
        tenant=row.tenant,
        run_id=row.run_id,
        step=row.step,
        model=row.model,
        cache=row.cache,
        paid_microusd=row.paid_microusd,
        saved_microusd=row.saved_microusd,
        kept=row.kept,
        background=row.background,
    )


def trace(trace_id: bytes, tree: SpanTree, settled: TraceSummary | None) -> pb.GetTraceResponse:
    """A trace with its critical path and the origin of its error.

    `settled` is its row when it has settled.
    """
    path = critical_path(tree)
    critical_ns = critical_ns_by_span(path)
    origin = error_origin(tree)
    sections = [
        pb.Section(
            span_id=section.span.span_id,
            offset_ns=section.start_ns - tree.root.start_ns,
            duration_ns=section.end_ns - section.start_ns,
        )
        for section in path
    ]
    return pb.GetTraceResponse(
        summary=trace_summary(settled or summarise_trace(trace_id, tree)),
        spans=[_span(tree, span, depth, critical_ns) for span, depth in tree.in_order()],
        critical_path=sections,
        error_origin_span_id=origin.span_id if origin else "",
    )


def _span(tree: SpanTree, span: SpanView, depth: int, critical_ns: Mapping[str, int]) -> pb.Span:
    parent = tree.by_id.get(span.parent_id)
    return pb.Span(
        span_id=span.span_id,
        parent_id=span.parent_id,
        service=span.source.service,
        instance=span.source.instance,
        name=span.name,
        kind=span.kind,
        start_unix_ns=span.start_ns,
        duration_ns=span.duration_ns,
        error=span.error,
        waited_on=parent is None or is_waited_on(parent, span),
        attributes={key: str(value) for key, value in span.attributes.items()},
        depth=depth,
        critical_ns=critical_ns.get(span.span_id, 0),
    )


def critical_path_table(trees: Sequence[SpanTree]) -> pb.GetCriticalPathResponse:
    """The critical paths of many traces, added up by service and operation."""
    total_ns: dict[tuple[str, str], int] = {}
    traces: dict[tuple[str, str], int] = {}
    for tree in trees:
        sections = critical_path(tree)
        keys = [(section.span.source.service, section.span.name) for section in sections]
        for key, section in zip(keys, sections, strict=True):
            total_ns[key] = total_ns.get(key, 0) + section.end_ns - section.start_ns
        for key in set(keys):
            traces[key] = traces.get(key, 0) + 1
    sum_ns = sum(total_ns.values()) or 1
    rows = [
        pb.CriticalPathRow(
            service=key[0], name=key[1], total_ms=ns / 1e6, share=ns / sum_ns, traces=traces[key]
        )
        for key, ns in sorted(total_ns.items(), key=lambda item: -item[1])
    ]
    return pb.GetCriticalPathResponse(rows=rows, traces=len(trees))


def service_graph(edges: Mapping[tuple[str, str], Edge]) -> pb.GetServiceGraphResponse:
    """Who calls whom, the busiest first."""
    busiest_first = sorted(edges.items(), key=lambda item: -item[1].server.count)
    return pb.GetServiceGraphResponse(
        edges=[
            pb.Edge(
                client=client,
                server=server,
                calls=edge.server.count,
                errors=edge.server.errors,
                p50_ms=edge.server.quantile_ms(0.5),
                p99_ms=edge.server.quantile_ms(0.99),
                hop_p50_ms=edge.hop.quantile_ms(0.5),
            )
            for (client, server), edge in busiest_first
        ]
    )


def latencies(by_operation: Mapping[tuple[str, str], Distribution]) -> pb.GetLatenciesResponse:
    """Latency by operation and complexity tier, the smaller tiers first."""
    order = {tier: number for number, (_, tier) in enumerate(TIERS)}

    def operation_then_tier(key: tuple[str, str]) -> tuple[str, int]:
        name, tier = key
        return name, order.get(tier, len(order))

    return pb.GetLatenciesResponse(
        rows=[
            pb.LatencyRow(
                name=key[0],
                tier=key[1],
                requests=by_operation[key].count,
                errors=by_operation[key].errors,
                p50_ms=by_operation[key].quantile_ms(0.5),
                p99_ms=by_operation[key].quantile_ms(0.99),
            )
            for key in sorted(by_operation, key=operation_then_tier)
        ]
    )


def overview(window: SeriesWindow, from_s: float, to_s: float) -> pb.GetOverviewResponse:
    """Every service in one row, from the durations that each sends of all its calls."""
    by_service: dict[str, list[Series]] = {}
    for series in window.find(semconv.RPC_SERVER_DURATION):
        if background_kind(dict(series.key.labels).get(semconv.RPC_METHOD, "")):
            continue
        by_service.setdefault(series.key.service, []).append(series)
    return pb.GetOverviewResponse(
        rows=[_service_row(name, rows, from_s, to_s) for name, rows in sorted(by_service.items())]
    )


def _service_row(service: str, rows: Sequence[Series], from_s: float, to_s: float) -> pb.ServiceRow:
    ranges: list[Range] = []
    calls = failed = 0
    step_s = max((to_s - from_s) / SPARK_STEPS, 0.001)
    calls_by_step = [0] * SPARK_STEPS
    for series in rows:
        # A cancelled call did not fail: its caller gave up, as with the loser of a hedge.
        status = _status_of(series)
        succeeded = status in ("OK", "CANCELLED")
        for point in series.points:
            if not from_s <= point.unix_s <= to_s:
                continue
            calls += point.observations
            failed += 0 if succeeded else point.observations
            step = min(int((point.unix_s - from_s) / step_s), SPARK_STEPS - 1)
            calls_by_step[step] += point.observations
            ranges += point.ranges
    merged = _merged(ranges)
    return pb.ServiceRow(
        service=service,
        instances=len({series.instance for series in rows}),
        calls_per_s=calls / max(to_s - from_s, 0.001),
        success=1.0 - failed / calls if calls else 1.0,
        p50_ms=quantile_of(merged, 0.5) * 1e3,
        p99_ms=quantile_of(merged, 0.99) * 1e3,
        spark=[count / step_s for count in calls_by_step],
    )


def _status_of(series: Series) -> str:
    """The name of the code that a series' calls ended with, under the present name or the old."""
    labels = dict(series.key.labels)
    return labels.get(semconv.RPC_STATUS) or labels.get("rpc.status_code") or "OK"


def _merged(ranges: Iterable[Range]) -> list[Range]:
    """The same ranges, each once."""
    counts: dict[tuple[float, float], int] = {}
    for low, high, count in ranges:
        counts[low, high] = counts.get((low, high), 0) + count
    return [(low, high, count) for (low, high), count in counts.items()]


def metrics(found: Sequence[Series], from_s: float, to_s: float) -> pb.GetMetricsResponse:
    """Series with their points in a period."""
    return pb.GetMetricsResponse(series=[_series(series, from_s, to_s) for series in found])


def _series(series: Series, from_s: float, to_s: float) -> pb.Series:
    points = [
        pb.Point(
            unix_ms=int(point.unix_s * 1000),
            value=point.value,
            count=point.observations,
            p50=point.p50,
            p99=point.p99,
        )
        for point in series.points
        if from_s <= point.unix_s <= to_s
    ]
    return pb.Series(
        name=series.key.metric,
        unit=series.unit,
        kind=series.kind,
        labels=series_labels(series),
        points=points,
    )


def quality(rows: Iterable[tuple[str, str, QualityMeasure]]) -> pb.GetQualityResponse:
    """Measures of models against their reference."""
    return pb.GetQualityResponse(
        rows=[
            pb.QualityRow(
                model=model,
                measure=name,
                reference=measure.reference_mean,
                now=measure.recent_mean,
                observations=measure.observations,
                drifted=measure.has_drifted and measure.observations > measure.reference_size,
            )
            for model, name, measure in rows
        ]
    )


def incident(row: Incident) -> pb.Incident:
    """An incident as it stands."""
    return pb.Incident(
        id=row.id,
        service=row.service,
        subject=row.subject,
        detector=row.detector,
        opened_unix_ms=int(row.opened_unix_s * 1000),
        last_unix_ms=int(row.last_unix_s * 1000),
        state=pb.INCIDENT_STATE_OPEN if row.open else pb.INCIDENT_STATE_CLOSED,
        severity=row.severity,
        summary=row.text,
        contributions=[
            pb.Contribution(
                feature=part.feature,
                share=part.share,
                value=part.value,
                expected=part.expected,
                subject=part.subject,
            )
            for part in row.contributions
        ],
        critical_section=row.critical_section,
        trace_ids=row.trace_ids,
        alerts=row.alerts,
    )


def intake(store: TelemetryStore, forwarder: Forwarder | None) -> pb.GetIntakeResponse:
    """What came in and what became of it."""
    window, counts = store.window, store.counts
    return pb.GetIntakeResponse(
        spans=counts.spans,
        rejected_spans=counts.rejected_spans,
        duplicate_spans=window.duplicate_spans,
        held_spans=window.held_spans,
        held_traces=len(window),
        released_traces=window.released_traces,
        metric_points=store.series.metric_points,
        log_records=counts.log_records,
        refused_exports=counts.refused_exports,
        held_bytes=window.packed_bytes,
        forward_queue=forwarder.queued if forwarder else 0,
        forwarded=forwarder.sent if forwarder else 0,
        forward_dropped=forwarder.dropped if forwarder else 0,
        lost_by_senders=store.lost_by_senders(),
    )
