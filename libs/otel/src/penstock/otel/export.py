"""Sending what was recorded: one background thread that turns it into OTLP with the standard
exporters. Nothing here runs on the loop.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    InMemoryMetricReader,
    MetricExportResult,
    MetricsData,
    ResourceMetrics,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags
from penstock.otel import attributes as names
from penstock.otel.metrics import to_scope_metrics
from penstock.otel.process_metrics import ProcessMetrics
from penstock.otel.recorder import EndedSpan, Recorded
from penstock.rpc.peers.stream import NO_PROXY
from penstock.service.boot_id import boot_id

log = logging.getLogger(__name__)

SCOPE = InstrumentationScope("penstock", "0.1.0")
KINDS = {"internal": SpanKind.INTERNAL, "server": SpanKind.SERVER, "client": SpanKind.CLIENT}
BATCH = 2048
"""Spans in one Export at most."""

RECORDED = TraceFlags(TraceFlags.SAMPLED)
METRICS_EVERY = 2
"""Metrics go out with every second export of spans."""


class Exporter:
    """The thread and what it sends through. Owner: the Telemetry that made it stops it."""

    def __init__(self, recorded: Recorded, interval_s: float) -> None:
        self._recorded = recorded
        self._interval_s = interval_s
        self.resource = Resource(_who(recorded))
        how: dict[str, Any] = {"insecure": True, "timeout": 5, "channel_options": (NO_PROXY,)}
        self._spans = OTLPSpanExporter(recorded.endpoint, **how)
        self._metrics = OTLPMetricExporter(recorded.endpoint, **how)
        self._reader = InMemoryMetricReader()
        self._provider = MeterProvider([self._reader], self.resource, shutdown_on_exit=False)
        self.meter = self._provider.get_meter("penstock", "0.1.0")
        for gauge in ProcessMetrics().gauges():
            self.add_gauge(*gauge)
        self._began_ns = time.time_ns()
        self._offset_ns = time.time_ns() - time.perf_counter_ns()
        self._stop = threading.Event()
        self.failing = False
        self._thread = threading.Thread(target=self._run, name="telemetry-export", daemon=True)
        for noisy in ("opentelemetry.exporter", "opentelemetry.sdk"):
            logging.getLogger(noisy).setLevel(
                logging.CRITICAL
            )  # `_say` says it once instead of at every attempt

    def start(self) -> None:
        """Begin to export."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Send what waits, for at most `timeout_s`, and end the thread."""
        self._stop.set()
        self._thread.join(timeout_s)
        self._spans.shutdown()
        self._metrics.shutdown()
        self._thread.join(timeout_s)

    def add_gauge(self, name: str, unit: str, description: str, read: Callable[[], float]) -> None:
        """Register an observable gauge."""

        def observe(_: CallbackOptions) -> Iterable[Observation]:
            yield Observation(read())

        self.meter.create_observable_gauge(name, [observe], unit, description)

    def _run(self) -> None:
        rounds = 0
        while not self._stop.wait(self._interval_s):
            self._send_spans()
            rounds += 1
            if rounds % METRICS_EVERY == 0:
                self._send_metrics()
        self._send_spans()
        self._send_metrics()

    def _send_spans(self) -> None:
        ring = self._recorded.ring
        while ring:
            batch = [ring.popleft() for _ in range(min(BATCH, len(ring)))]
            sent = self._spans.export([self._readable(ended) for ended in batch])
            self._say(sent is SpanExportResult.SUCCESS, len(batch))
            if sent is not SpanExportResult.SUCCESS:
                return

    def _send_metrics(self) -> None:
        accounts = self._recorded.accounts.take()
        now_ns, lost = time.time_ns(), self._recorded.dropped
        scopes = to_scope_metrics(
            self._recorded.durations, lost, accounts, (self._began_ns, now_ns)
        )
        theirs = self._reader.get_metrics_data()
        for resource in theirs.resource_metrics if theirs else ():
            scopes += (
                resource.scope_metrics
            )  # one resource: the encoder keeps only the last of equal ones
        sent = self._metrics.export(MetricsData([ResourceMetrics(self.resource, scopes, "")]))
        if sent is not MetricExportResult.SUCCESS:
            self._recorded.accounts.restore(accounts)
        self._say(sent is MetricExportResult.SUCCESS, 0)

    def _say(self, sent: bool, spans: int) -> None:
        """Count what was lost and log once when the receiver goes away and once when it is back."""
        if not sent:
            self._recorded.dropped += spans
        if sent is self.failing and not self._stop.is_set():
            self.failing = not sent
            told = (
                "takes telemetry again"
                if sent
                else "does not take telemetry; requests go on without it"
            )
            log.warning(
                "%s %s; %d spans lost so far", self._recorded.endpoint, told, self._recorded.dropped
            )

    def _readable(self, ended: EndedSpan) -> ReadableSpan:
        trace_id, parent = int(ended.trace_id, 16), None
        if ended.parent_id:
            parent = SpanContext(
                trace_id, int(ended.parent_id, 16), is_remote=False, trace_flags=RECORDED
            )
        return ReadableSpan(
            name=ended.name.rpartition(".")[2] if "/" in ended.name else ended.name,
            context=SpanContext(
                trace_id, int(ended.span_id, 16), is_remote=False, trace_flags=RECORDED
            ),
            parent=parent,
            resource=self.resource,
            attributes=_attributes(ended),
            kind=KINDS[ended.kind],
            status=Status(StatusCode.ERROR, ended.code) if ended.code else Status(StatusCode.UNSET),
            start_time=ended.start_ns + self._offset_ns,
            end_time=ended.end_ns + self._offset_ns,
            instrumentation_scope=SCOPE,
        )


def _who(recorded: Recorded) -> dict[str, str | int]:
    instance = recorded.instance or f"{socket.gethostname()}:{os.getpid()}"
    who: dict[str, str | int] = {
        "service.name": recorded.service,
        "service.instance.id": instance,
        "process.pid": os.getpid(),
    }
    if host := boot_id():
        who[names.HOST_BOOT_ID] = host
    return who


def _attributes(ended: EndedSpan) -> dict[str, str | int | float | bool]:
    call = ended.call
    said: dict[str, str | int | float | bool] = dict(ended.attributes or {})
    if "/" in ended.name and ended.kind != "internal":
        said |= {
            names.RPC_SYSTEM: "grpc",
            names.RPC_METHOD: ended.name,
            names.RPC_STATUS: ended.code or "OK",
        }
    if ended.code:
        said[names.ERROR_TYPE] = ended.reason or ended.code
    optional = {
        names.TENANT: call.principal.organisation,
        names.RUN: call.run_id,
        names.STEP: call.step,
        names.KEPT: ended.kept,
    }
    return (
        said
        | {key: value for key, value in optional.items() if value}
        | {names.PRIORITY: call.priority}
    )
