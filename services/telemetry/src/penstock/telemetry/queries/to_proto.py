"""What the store holds, turned into messages. Conversion only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.otel import attributes as names
from penstock.telemetry.detection.incidents import Incident
from penstock.telemetry.detection.quality import Measure
from penstock.telemetry.spans.critical_path import critical_path, time_in
from penstock.telemetry.spans.spans import SpanView, Tree, error_origin, waited_on
from penstock.telemetry.window.analysis import summarise
from penstock.telemetry.window.series import Series, SeriesWindow, labels_of
from penstock.telemetry.window.statistics import Distribution, quantile
from penstock.telemetry.window.traces import Summary

if TYPE_CHECKING:
    from penstock.telemetry.export.forwarding import Forwarder
    from penstock.telemetry.store import Store

SPARKS = 12
"""Steps of a spark line: of a minute, five seconds each, so that every sender has reported in each.
"""


def summary(row: Summary) -> pb.TraceSummary:
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
    )


def trace(trace_id: bytes, tree: Tree, settled: Summary | None) -> pb.GetTraceResponse:
    """A trace with its critical path and the origin of its error."""
    path = critical_path(tree)
    spent = time_in(path)
    origin = error_origin(tree)
    sections = [
        pb.Section(
            span_id=part.span.span_id,
            offset_ns=part.start_ns - tree.root.start_ns,
            duration_ns=part.end_ns - part.start_ns,
        )
        for part in path
    ]
    return pb.GetTraceResponse(
        summary=summary(settled or summarise(trace_id, tree)),
        spans=[_span(tree, row, depth, spent) for row, depth in tree.in_order()],
        critical_path=sections,
        error_origin_span_id=origin.span_id if origin else "",
    )


def _span(tree: Tree, row: SpanView, depth: int, spent: Mapping[str, int]) -> pb.Span:
    parent = tree.by_id.get(row.parent_id)
    return pb.Span(
        span_id=row.span_id,
        parent_id=row.parent_id,
        service=row.source.service,
        instance=row.source.instance,
        name=row.name,
        kind=row.kind,
        start_unix_ns=row.start_ns,
        duration_ns=row.duration_ns,
        error=row.error,
        waited_on=parent is None or waited_on(parent, row),
        attributes={key: str(value) for key, value in row.attributes.items()},
        depth=depth,
        critical_ns=spent.get(row.span_id, 0),
    )


def critical_path_table(trees: Sequence[Tree]) -> pb.GetCriticalPathResponse:
    """Critical paths added up by service and operation."""
    total: dict[tuple[str, str], int] = {}
    count: dict[tuple[str, str], int] = {}
    for tree in trees:
        sections = critical_path(tree)
        for part in sections:
            key = (part.span.source.service, part.span.name)
            total[key] = total.get(key, 0) + part.end_ns - part.start_ns
        for key in {(part.span.source.service, part.span.name) for part in sections}:
            count[key] = count.get(key, 0) + 1
    whole = sum(total.values()) or 1
    rows = [
        pb.CriticalPathRow(
            service=key[0], name=key[1], total_ms=ns / 1e6, share=ns / whole, traces=count[key]
        )
        for key, ns in sorted(total.items(), key=lambda item: -item[1])
    ]
    return pb.GetCriticalPathResponse(rows=rows, traces=len(trees))


def edges(
    found: Mapping[tuple[str, str], tuple[Distribution, Distribution]],
) -> pb.GetServiceGraphResponse:
    """Who calls whom, busiest first."""
    rows = [
        pb.Edge(
            client=client,
            server=server,
            calls=served.count,
            errors=served.errors,
            p50_ms=served.quantile_ms(0.5),
            p99_ms=served.quantile_ms(0.99),
            hop_p50_ms=hop.quantile_ms(0.5),
        )
        for (client, server), (served, hop) in sorted(
            found.items(), key=lambda item: -item[1][0].count
        )
    ]
    return pb.GetServiceGraphResponse(edges=rows)


def latencies(found: Mapping[tuple[str, str], Distribution]) -> pb.GetLatenciesResponse:
    """Latency by operation and tier."""
    order = [tier for _, tier in names.TIERS]
    keys = sorted(
        found, key=lambda key: (key[0], order.index(key[1]) if key[1] in order else len(order))
    )
    rows = [
        pb.LatencyRow(
            name=key[0],
            tier=key[1],
            requests=found[key].count,
            errors=found[key].errors,
            p50_ms=found[key].quantile_ms(0.5),
            p99_ms=found[key].quantile_ms(0.99),
        )
        for key in keys
    ]
    return pb.GetLatenciesResponse(rows=rows)


def overview(window: SeriesWindow, from_s: float, to_s: float) -> pb.GetOverviewResponse:
    """Every service in one row, from the counts that each sends of all its calls."""
    by_service: dict[str, list[Series]] = {}
    for held in window.find(names.RPC_SERVER_DURATION):
        by_service.setdefault(held.key.service, []).append(held)
    return pb.GetOverviewResponse(
        rows=[_row(name, rows, from_s, to_s) for name, rows in sorted(by_service.items())]
    )


def _row(service: str, rows: Sequence[Series], from_s: float, to_s: float) -> pb.ServiceRow:
    buckets: dict[int, int] = {}
    count = failed = 0
    step_s = max((to_s - from_s) / SPARKS, 0.001)
    sparks = [0] * SPARKS
    for held in rows:
        # Who gives up, such as the loser of a hedge, was not failed.
        good = dict(held.key.labels).get(names.RPC_STATUS, "OK") in ("OK", "CANCELLED")
        for point in held.points:
            if not from_s <= point.unix_s <= to_s:
                continue
            count += point.seen
            failed += 0 if good else point.seen
            sparks[min(int((point.unix_s - from_s) / step_s), SPARKS - 1)] += point.seen
            for index, number in point.buckets:
                buckets[index] = buckets.get(index, 0) + number
    bounds = rows[0].bounds
    return pb.ServiceRow(
        service=service,
        instances=len({held.instance for held in rows}),
        calls_per_s=count / max(to_s - from_s, 0.001),
        success=1.0 - failed / count if count else 1.0,
        p50_ms=quantile(buckets, count, 0.5, bounds) * 1e3,
        p99_ms=quantile(buckets, count, 0.99, bounds) * 1e3,
        spark=[number / step_s for number in sparks],
    )


def series(found: Sequence[Series], from_s: float, to_s: float) -> pb.GetMetricsResponse:
    """Series with their points in the period."""
    return pb.GetMetricsResponse(series=[_series(held, from_s, to_s) for held in found])


def _series(held: Series, from_s: float, to_s: float) -> pb.Series:
    points = [
        pb.Point(unix_ms=int(p.unix_s * 1000), value=p.value, count=p.seen, p50=p.p50, p99=p.p99)
        for p in held.points
        if from_s <= p.unix_s <= to_s
    ]
    return pb.Series(
        name=held.key.metric, unit=held.unit, kind=held.kind, labels=labels_of(held), points=points
    )


def quality(rows: Iterable[tuple[str, str, Measure]]) -> pb.GetQualityResponse:
    """Measures against their reference."""
    return pb.GetQualityResponse(
        rows=[
            pb.QualityRow(
                model=model,
                measure=name,
                reference=row.mean,
                now=row.now,
                observations=row.observations,
                drifted=row.drifted and row.observations > row.reference,
            )
            for model, name, row in rows
        ]
    )


def incident(row: Incident) -> pb.Incident:
    """An incident."""
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
                feature=b.feature,
                share=b.share,
                value=b.value,
                expected=b.expected,
                subject=b.subject,
            )
            for b in row.blames
        ],
        critical_section=row.critical_section,
        trace_ids=row.trace_ids,
        alerts=row.alerts,
    )


def intake(store: Store, forwarder: Forwarder | None) -> pb.GetIntakeResponse:
    """What came in and what became of it."""
    window, counts = store.window, store.counts
    return pb.GetIntakeResponse(
        spans=counts.spans,
        rejected_spans=counts.rejected_spans,
        duplicate_spans=window.duplicates,
        held_spans=window.held_spans,
        held_traces=len(window),
        released_traces=window.released,
        metric_points=store.series.points_taken,
        log_records=counts.log_records,
        refused_exports=counts.refused_exports,
        held_bytes=window.packed_bytes,
        forward_queue=forwarder.waiting if forwarder else 0,
        forwarded=forwarder.sent if forwarder else 0,
        forward_dropped=forwarder.dropped if forwarder else 0,
        lost_by_senders=store.lost_by_senders(),
    )
