"""Sending what was recorded: one background thread that gives it to OpenTelemetry's own exporters.

Nothing here runs on the event loop.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, cast

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as SenderMessage
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    InMemoryMetricReader,
    MetricExportResult,
    MetricsData,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SpanExportResult
from penstock.otel import attributes as semconv
from penstock.otel.metrics import counts_as_metrics
from penstock.otel.process_metrics import ProcessMetrics, boot_id
from penstock.otel.recorder import Recorder
from penstock.otel.span_messages import export_request, put_attributes
from penstock.rpc.credentials import channel_credentials
from penstock.rpc.peers.stream import NO_PROXY
from penstock.service.clock import until_tick_s
from penstock.service.purity import pure
from penstock.service.tls_files import TlsSource

log = logging.getLogger(__name__)

MAX_SPANS_PER_EXPORT = 2048
SPAN_EXPORTS_PER_METRIC_EXPORT = 2
IDLE_METRICS_S = 15.0
"""Seconds between exports of metrics while no request is served: telemetry's detectors take one
sample in so many.
"""


class Exporter:
    """The exporting thread and its connections. Owner: the Telemetry that made it stops it.

    Args:
        recorder: what is taken from.
        endpoint: `host:port` or `unix:/path` of the receiver.
        resource: who is sending, see `resource_of`.
        of_process: whose the metrics of the process are; None: not exported here.
        interval_s: seconds between exports of spans.
        tls: own certificate and whom the receiver's must come from; None for plaintext.
    """

    def __init__(
        self,
        recorder: Recorder,
        endpoint: str,
        resource: Resource,
        of_process: Resource | None,
        interval_s: float,
        tls: TlsSource | None = None,
    ) -> None:
        self._recorder = recorder
        self._endpoint = endpoint
        self._resource = resource
        self._sender = SenderMessage()
        put_attributes(self._sender.attributes, cast(Any, resource.attributes))
        self._interval_s = interval_s
        self._tls = tls
        self._generation = 0
        self._spans, self._metrics = self._connect()
        self._reader = InMemoryMetricReader()
        self._provider = MeterProvider([self._reader], resource, shutdown_on_exit=False)
        self.meter = self._provider.get_meter("penstock", "0.1.0")
        self._process: _OtherResource | None = None
        if of_process is not None:
            self._add_process_metrics(of_process)
        self._started_ns = time.time_ns()
        self._unix_offset_ns = time.time_ns() - time.perf_counter_ns()
        self._stop = threading.Event()
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

    def start(self) -> None:
        """Begin to export."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Export what waits, for at most `timeout_s`, and end the thread."""
        self._stop.set()
        self._thread.join(timeout_s)
        self._spans.shutdown()
        self._metrics.shutdown()
        self._thread.join(timeout_s)

    def add_gauge(self, name: str, unit: str, description: str, read: Callable[[], float]) -> None:
        """Export what `read` returns with every export of metrics."""

        _add_gauge(self.meter, name, unit, description, read)

    def _add_process_metrics(self, resource: Resource) -> None:
        """Export CPU, memory and threads with every export of metrics, under a resource."""
        meter = self.meter
        if resource != self._resource:
            self._process = _OtherResource(resource)
            meter = self._process.meter
        for gauge in ProcessMetrics().gauges():
            _add_gauge(meter, *gauge)

    def _run(self) -> None:
        rounds = 0
        exported = MetricsExported()
        while not self._stop.wait(until_tick_s(time.monotonic(), self._interval_s)):
            self._renew()
            self._export_spans()
            rounds += 1
            served, now_s = self._recorder.durations.requests(), time.monotonic()
            if rounds % SPAN_EXPORTS_PER_METRIC_EXPORT or not exported.is_due(served, now_s):
                continue
            if self._export_metrics():
                exported = MetricsExported(served, now_s)
        self._export_spans()
        self._export_metrics()

    def _export_spans(self) -> None:
        queue = self._recorder.ended_spans
        while queue:
            batch = [queue.popleft() for _ in range(min(MAX_SPANS_PER_EXPORT, len(queue)))]
            request = export_request(
                batch, self._sender, semconv.SEMCONV_SCHEMA, self._unix_offset_ns
            )
            result = self._spans.export(cast(Any, request))
            delivered = result is SpanExportResult.SUCCESS
            self._note_result(delivered, len(batch))
            if not delivered:
                return

    def _export_metrics(self) -> bool:
        """Export all metrics as they are now; whether they were delivered."""
        recorder = self._recorder
        accounts = recorder.accounts.drain()
        period_ns = (self._started_ns, time.time_ns())
        scopes = counts_as_metrics(recorder.durations, recorder.dropped_spans, accounts, period_ns)
        # All under one resource: of equal resources the encoder keeps only the last.
        scopes += _scopes(self._reader)
        resources = [ResourceMetrics(self._resource, scopes, "")]
        if self._process is not None:
            resources.append(self._process.metrics())
        data = MetricsData(resources)
        delivered = self._metrics.export(data) is MetricExportResult.SUCCESS
        if not delivered:
            recorder.accounts.restore(accounts)
        self._note_result(delivered, 0)
        return delivered

    def _note_result(self, delivered: bool, spans: int) -> None:
        """Count lost spans; log when the receiver stops taking exports and when it takes them
        again.
        """
        if not delivered:
            self._recorder.dropped_spans += spans
        if delivered is self.is_failing and not self._stop.is_set():
            self.is_failing = not delivered
            if delivered:
                event = "takes telemetry again"
            else:
                event = "does not take telemetry, calls go on without it"
            dropped = self._recorder.dropped_spans
            log.warning("%s %s; %d spans dropped so far", self._endpoint, event, dropped)


@pure
class MetricsExported(NamedTuple):
    """The last export of metrics: the requests that had been counted, and when, in monotonic
    seconds.
    """

    requests: int = -1
    at_s: float = -math.inf

    def is_due(self, requests: int, now_s: float) -> bool:
        """Whether there is something to export: requests were served, or so much time has passed
        that what is only read (memory, queues) counts as news.
        """
        return requests != self.requests or now_s - self.at_s >= IDLE_METRICS_S


class _SpanExporter(OTLPSpanExporter):
    """OpenTelemetry's exporter, which is given a message instead of the SDK's spans."""

    def _translate_data(self, data: Any) -> ExportTraceServiceRequest:
        request: ExportTraceServiceRequest = data
        return request

    def _count_data(self, data: Any) -> int:
        return sum(len(each.spans) for of in data.resource_spans for each in of.scope_spans)


class _OtherResource:
    """Instruments under another resource than the service's."""

    def __init__(self, resource: Resource) -> None:
        self._resource = resource
        self._reader = InMemoryMetricReader()
        provider = MeterProvider([self._reader], resource, shutdown_on_exit=False)
        self.meter = provider.get_meter("penstock", "0.1.0")

    def metrics(self) -> ResourceMetrics:
        """What its instruments say now."""
        return ResourceMetrics(self._resource, _scopes(self._reader), "")


def _scopes(reader: InMemoryMetricReader) -> list[ScopeMetrics]:
    """What the counters, histograms and gauges of a reader say now."""
    data = reader.get_metrics_data()
    if data is None:
        return []
    return [scope for resource in data.resource_metrics for scope in resource.scope_metrics]


def _add_gauge(
    meter: Meter, name: str, unit: str, description: str, read: Callable[[], float]
) -> None:
    def observe(_: CallbackOptions) -> Iterable[Observation]:
        yield Observation(read())

    meter.create_observable_gauge(name, [observe], unit, description)


def resource_of(service: str, instance: str = "") -> Resource:
    """The OpenTelemetry resource of this process."""
    attributes: dict[str, str | int] = {
        "service.name": service,
        "service.instance.id": instance or f"{socket.gethostname()}:{os.getpid()}",
        "process.pid": os.getpid(),
    }
    if host := boot_id():
        attributes[semconv.HOST_BOOT_ID] = host
    return Resource(attributes, semconv.SEMCONV_SCHEMA)
