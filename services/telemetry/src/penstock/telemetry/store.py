"""Everything that telemetry holds, and the round in which traces settle.

Traces and metrics are kept in bounded windows, costs in the ledger. Every quarter of a second the
traces that have been quiet settle: they are counted in the statistics, shown to the detectors and
packed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple

from opentelemetry.proto.metrics.v1 import metrics_pb2
from penstock.otel import attributes as semconv
from penstock.otel.metrics import ACCOUNTS_SCOPE
from penstock.service.clock import Clock, until_tick_s
from penstock.service.subscribers import Subscribers, Subscription
from penstock.telemetry.detection.pipeline import DetectionPipeline
from penstock.telemetry.ledger.ledger import Ledger
from penstock.telemetry.spans.spans import Source, SpanTree
from penstock.telemetry.window.retention import Retention
from penstock.telemetry.window.series import (
    MAX_SERIES_BYTES,
    Point,
    SeriesKey,
    SeriesWindow,
)
from penstock.telemetry.window.settled_traces import (
    SettledRequest,
    TraceStatistics,
    TraceSummary,
    requests_of,
    summarise_trace,
)
from penstock.telemetry.window.traces import TraceWindow

ROUND_S, IDLE_ROUND_S = 0.25, 1.0
MAX_SETTLED_PER_ROUND = 400
"""Traces that settle before other calls get their turn."""

OWN_METRICS_EVERY_S = 5.0
MAX_TENANTS_IN_METRICS = 50
"""Tenants whose costs are shown as metrics; queries of the ledger know all."""

MAX_QUEUED_TRACES = 1000
"""Settled traces that may wait for one subscriber."""

Labels = tuple[tuple[str, str], ...]


@dataclass
class IntakeCounts:
    """What came in since the start."""

    spans: int = 0
    rejected_spans: int = 0
    log_records: int = 0
    refused_exports: int = 0


class OwnMetric(NamedTuple):
    """A metric that only telemetry knows."""

    name: str
    """Without `penstock.`."""
    value: float
    unit: str = ""
    labels: Labels = ()


class TelemetryStore:
    """The state of the service. Owner: whoever made it runs `run` and cancels it.

    Args:
        clock: for the rounds and the time of costs.
        max_bytes: of packed traces, and of open ones.
        max_series_bytes: of metric series.
        detection: what is shown metrics and settled requests.
        seed: of the chance by which ordinary traces are kept.
    """

    def __init__(
        self,
        clock: Clock,
        max_bytes: int,
        detection: DetectionPipeline | None = None,
        seed: int = 0,
        max_series_bytes: int = MAX_SERIES_BYTES,
    ) -> None:
        self.clock = clock
        self.window = TraceWindow(max_bytes)
        self.statistics = TraceStatistics()
        self.series = SeriesWindow(max_bytes=max_series_bytes)
        self.ledger = Ledger()
        self.counts = IntakeCounts()
        self.detection = detection or DetectionPipeline()
        self._retention = Retention(random.Random(seed))
        self._subscribers = Subscribers[TraceSummary](MAX_QUEUED_TRACES)
        self._own_metrics_written_s = 0.0

    def ingest_metrics(
        self,
        source: Source,
        scopes: Iterable[metrics_pb2.ScopeMetrics],
        resource: Mapping[str, str] | None = None,
    ) -> None:
        """Take metrics of one sender; `resource` holds the attributes of its resource.

        Increments of accounts go to the ledger, and no series is made of them.
        """
        now_s = self.clock.time()
        self.series.hear_from(source.service, source.instance, resource or {}, now_s)
        for scope in scopes:
            if scope.scope.name == ACCOUNTS_SCOPE.name:
                sender = f"{source.service}/{source.instance}"
                self.ledger.record(sender, scope, now_s)
                continue
            for metric in scope.metrics:
                written = self.series.record(source.service, source.instance, metric, now_s)
                for series, point in written:
                    self.detection.observe_point(series, point)

    def record_host_metric(self, key: SeriesKey, unit: str, unix_s: float, value: float) -> None:
        """Take a metric of this machine; detectors see it like any sender's."""
        series = self.series.record_gauge(key, "", unit, unix_s, value)
        self.detection.observe_point(series, Point(unix_s, value))

    def settle(self) -> int:
        """Settle the traces that are due; returns how many."""
        due = self.window.due_to_settle(self.clock.monotonic(), MAX_SETTLED_PER_ROUND)
        for trace_id in due:
            self._subscribers.publish(self._settle(trace_id))
        return len(due)

    def _settle(self, trace_id: bytes) -> TraceSummary:
        """Count a trace, show its requests to the detectors, and pack it."""
        tree = SpanTree(self.window.spans(trace_id))
        summary = summarise_trace(trace_id, tree)
        self.statistics.add(tree)
        if not summary.background:
            summary.kept = self._reason_to_keep(trace_id, tree, summary)
        self.window.settle(trace_id, summary)
        return summary

    def _reason_to_keep(self, trace_id: bytes, tree: SpanTree, summary: TraceSummary) -> str:
        """Show the requests of a trace to the detectors; why to keep it longer than others."""
        is_anomalous = False
        for request in requests_of(tree):
            row = summary if request is tree else summarise_trace(trace_id, request)
            is_anomalous |= self.detection.observe_request(SettledRequest(row, request))
        kept_by_sender = str(tree.root.attributes.get(semconv.KEPT, ""))
        return self._retention.reason(summary, kept_by_sender, is_anomalous)

    async def run(self) -> None:
        """Settle traces and close quiet incidents until it is cancelled."""
        while True:
            settled = self.settle()
            await self.clock.sleep(self._pause_s(settled))
            self.detection.incidents.close_quiet(self.clock.time())
            self.write_own_metrics()

    def _pause_s(self, settled: int) -> float:
        """Until the next round; a trace that opens meanwhile is not due before an idle round."""
        if settled >= MAX_SETTLED_PER_ROUND:
            return 0.0
        if self.window.open_bytes:
            return ROUND_S
        return until_tick_s(self.clock.monotonic(), IDLE_ROUND_S)

    def write_own_metrics(self) -> None:
        """Write telemetry's own metrics as series, at most every OWN_METRICS_EVERY_S."""
        now_s = self.clock.time()
        if now_s - self._own_metrics_written_s < OWN_METRICS_EVERY_S:
            return
        self._own_metrics_written_s = now_s
        self.series.expire(now_s)
        for metric in self._own_metrics():
            key = SeriesKey("telemetry", f"penstock.{metric.name}", metric.labels)
            self.series.record_gauge(key, "", metric.unit, now_s, metric.value)

    def _own_metrics(self) -> Iterator[OwnMetric]:
        """Detectors, incidents, and costs by tenant and technique."""
        for name, value in self.detection.metrics():
            yield OwnMetric(name, value)
        for total in self.ledger.totals_by(lambda key: key.tenant)[:MAX_TENANTS_IN_METRICS]:
            account = total.account
            tenant = ((semconv.TENANT, total.key),)
            yield OwnMetric("ledger.paid", account.paid_microusd / 1e6, "USD", tenant)
            yield OwnMetric("ledger.full_price", account.full_price_microusd / 1e6, "USD", tenant)
            for technique, microusd in account.saved_microusd.items():
                labels = (*tenant, (semconv.TECHNIQUE, technique))
                yield OwnMetric("ledger.saved", microusd / 1e6, "USD", labels)

    def subscribe(
        self, accepts: Callable[[TraceSummary], bool]
    ) -> AbstractContextManager[Subscription[TraceSummary]]:
        """Receive traces as they settle, those that `accepts` is true for."""
        return self._subscribers.subscribe(accepts)

    def lost_by_senders(self) -> int:
        """The number of spans that senders report as dropped."""
        return int(sum(series.total for series in self.series.find(semconv.DROPPED_SPANS)))
