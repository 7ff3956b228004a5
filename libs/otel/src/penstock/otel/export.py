"""Sending what was recorded: one background thread of a process, for all of its services, that
gives it to OpenTelemetry's own exporters.

Nothing here runs on the event loop. Services of one process that export to the same receiver share
a thread, its connections and its exports, in which each has a resource of its own: an export costs
sender and receiver a dozen times what a span in it costs.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Sequence
from typing import Any, cast

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData
from opentelemetry.sdk.trace.export import SpanExportResult
from penstock.otel import attributes as semconv
from penstock.otel.export_source import ExportSource
from penstock.otel.span_messages import add_spans
from penstock.rpc.credentials import channel_credentials
from penstock.rpc.peers.stream import NO_PROXY
from penstock.service.clock import until_tick_s
from penstock.service.tls_files import TlsSource

log = logging.getLogger(__name__)

MAX_SPANS_PER_EXPORT = 2048
SPAN_EXPORTS_PER_METRIC_EXPORT = 2


class Exporter:
    """The exporting thread and its connections. It runs from when the first source joins until the
    last one has left.

    Args:
        endpoint: `host:port` or `unix:/path` of the receiver.
        interval_s: seconds between exports of spans.
        tls: own certificate and whom the receiver's must come from; None for plaintext.
    """

    def __init__(self, endpoint: str, interval_s: float, tls: TlsSource | None = None) -> None:
        self._endpoint = endpoint
        self._interval_s = interval_s
        self._phase_s = random.uniform(0.0, interval_s)
        """Seconds: processes that exported at the same moment would hold each other's calls up."""
        self._tls = tls
        self._generation = 0
        self._spans, self._metrics = self._connect()
        self._unix_offset_ns = time.time_ns() - time.perf_counter_ns()
        self._lock = threading.Lock()
        self._sources: list[ExportSource] = []
        self._leaving: list[tuple[ExportSource, threading.Event]] = []
        self._wake = threading.Event()
        self._ending = threading.Event()
        self._rounds = 0
        self.is_failing = False
        """Whether the last export failed."""
        self._thread = threading.Thread(target=self._run, name="telemetry-export", daemon=True)
        for name in ("opentelemetry.exporter", "opentelemetry.sdk"):
            # These log every failed attempt; `_note_result` logs when the state changes.
            logging.getLogger(name).setLevel(logging.CRITICAL)

    def _connect(self) -> tuple[_SpanExporter, OTLPMetricExporter]:
        """Exporters for spans and metrics, with the newest certificate."""
        options: dict[str, Any] = {"timeout": 5, "channel_options": (NO_PROXY,)}
        if self._tls is None:
            options["insecure"] = True
        else:
            options |= {"insecure": False, "credentials": channel_credentials(self._tls.current())}
            self._generation = self._tls.generation
        return (
            _SpanExporter(self._endpoint, **options),
            OTLPMetricExporter(self._endpoint, **options),
        )

    def _renew(self) -> None:
        """Connect again where the certificate has changed."""
        if self._tls is None:
            return
        self._tls.current()
        if self._generation != self._tls.generation:
            for old in (self._spans, self._metrics):
                old.shutdown()
            self._spans, self._metrics = self._connect()

    @property
    def is_ending(self) -> bool:
        """Whether the last source has left."""
        return self._ending.is_set()

    def join(self, source: ExportSource) -> None:
        """Export a source from now on. Whoever joins it must `leave`."""
        with self._lock:
            self._sources.append(source)
            if self._thread.ident is None:
                self._thread.start()

    def leave(self, source: ExportSource, timeout_s: float) -> None:
        """Export what waits of a source, for at most `timeout_s`, and no more of it afterwards; the
        last one to leave ends the thread. Blocks.
        """
        done = threading.Event()
        with self._lock:
            self._leaving.append((source, done))
        self._wake.set()
        done.wait(timeout_s)
        with self._lock:
            self._sources.remove(source)
            if not self._sources:
                self._ending.set()
        if self.is_ending:
            self._end(timeout_s)

    def _end(self, timeout_s: float) -> None:
        self._wake.set()
        self._spans.shutdown()
        self._metrics.shutdown()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._ending.is_set():
            self._wake.wait(until_tick_s(time.monotonic() + self._phase_s, self._interval_s))
            self._wake.clear()
            with self._lock:
                sources, leaving, self._leaving = tuple(self._sources), self._leaving, []
            if self._ending.is_set():
                return
            self._renew()
            self._export_spans(sources)
            last = [source for source, _ in leaving]
            if due := [*last, *self._due(source for source in sources if source not in last)]:
                self._export_metrics(due)
            for _, done in leaving:
                done.set()

    def _due(self, sources: Any) -> Sequence[ExportSource]:
        """The sources whose metrics are to be exported in this round."""
        self._rounds += 1
        if self._rounds % SPAN_EXPORTS_PER_METRIC_EXPORT:
            return ()
        now_s = time.monotonic()
        return [source for source in sources if source.are_metrics_due(now_s)]

    def _export_spans(self, sources: Sequence[ExportSource]) -> None:
        while True:
            request, sent = self._next_request(sources)
            if not sent:
                return
            result = self._spans.export(cast(Any, request))
            delivered = result is SpanExportResult.SUCCESS
            if not delivered:
                for source, spans in sent:
                    source.recorder.dropped_spans += spans
            self._note_result(delivered)
            if not delivered:
                return

    def _next_request(
        self, sources: Sequence[ExportSource]
    ) -> tuple[ExportTraceServiceRequest, list[tuple[ExportSource, int]]]:
        """An export of ended spans, and how many of each source are in it."""
        request, room = ExportTraceServiceRequest(), MAX_SPANS_PER_EXPORT
        sent = []
        for source in sources:
            if spans := source.take_spans(room):
                add_spans(
                    request, spans, source.sender, semconv.SEMCONV_SCHEMA, self._unix_offset_ns
                )
                sent.append((source, len(spans)))
                room -= len(spans)
        return request, sent

    def _export_metrics(self, sources: Sequence[ExportSource]) -> None:
        """Export all metrics of these sources as they are now."""
        now_s = time.monotonic()
        taken = [(source, source.take_metrics(now_s)) for source in sources]
        data = MetricsData([each for _, metrics in taken for each in metrics.resources])
        delivered = self._metrics.export(data) is MetricExportResult.SUCCESS
        for source, metrics in taken:
            source.settle(metrics, delivered=delivered)
        self._note_result(delivered)

    def _note_result(self, delivered: bool) -> None:
        """Log when the receiver stops taking exports and when it takes them again."""
        if delivered is not self.is_failing or self.is_ending:
            return
        self.is_failing = not delivered
        if delivered:
            event = "takes telemetry again"
        else:
            event = "does not take telemetry, calls go on without it"
        dropped = sum(source.recorder.dropped_spans for source in self._sources)
        log.warning("%s %s; %d spans dropped so far", self._endpoint, event, dropped)


class _SpanExporter(OTLPSpanExporter):
    """OpenTelemetry's exporter, which is given a message instead of the SDK's spans."""

    def _translate_data(self, data: Any) -> ExportTraceServiceRequest:
        request: ExportTraceServiceRequest = data
        return request

    def _count_data(self, data: Any) -> int:
        return sum(len(each.spans) for of in data.resource_spans for each in of.scope_spans)
