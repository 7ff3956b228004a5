"""What one service of a process exports, under its own resource; see `penstock.otel.export`."""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, cast

from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as SenderMessage
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, ResourceMetrics, ScopeMetrics
from opentelemetry.sdk.resources import Resource
from penstock.otel import attributes as semconv
from penstock.otel.counts import Account, AccountKey
from penstock.otel.instruments import (
    CumulativeCounter,
    CumulativeHistogram,
    Description,
    Instruments,
)
from penstock.otel.metrics import counts_as_metrics
from penstock.otel.process_metrics import ProcessMetrics, boot_id
from penstock.otel.recorder import EndedSpan, Recorder
from penstock.otel.span_messages import put_attributes
from penstock.service.purity import pure

BUSY_METRICS_S = 10.0
"""Least seconds between exports of metrics in production: while one is made, calls wait."""
IDLE_METRICS_S = 15.0
"""Seconds between exports of metrics while no request is served: telemetry's detectors take one
sample in so many.
"""


@pure
class MetricsExported(NamedTuple):
    """The last export of metrics: the requests that had been counted, and when, in monotonic
    seconds.
    """

    requests: int = -1
    at_s: float = -math.inf

    def is_due(self, requests: int, now_s: float, apart_s: float = 0.0) -> bool:
        """Whether there is something to export: requests were served since the last export, which
        is `apart_s` ago, or so much time has passed that what is only read (memory, queues) counts
        as news.
        """
        since_s = now_s - self.at_s
        return since_s >= IDLE_METRICS_S or (requests != self.requests and since_s >= apart_s)


class TakenMetrics(NamedTuple):
    """Metrics of one source that are being exported, and what is put back if that fails."""

    resources: Sequence[ResourceMetrics]
    accounts: dict[AccountKey, Account]
    exported: MetricsExported


class ExportSource:
    """What one service has recorded and the instruments that it has made.

    Args:
        recorder: what is taken from.
        resource: who is sending, see `resource_of`.
        of_process: whose the metrics of the process are; None: another service exports them.
        apart_s: least seconds between exports of metrics, but for the last.
    """

    def __init__(
        self,
        recorder: Recorder,
        resource: Resource,
        of_process: Resource | None,
        apart_s: float = 0.0,
    ) -> None:
        self.recorder = recorder
        self._apart_s = apart_s
        self.sender = SenderMessage()
        """The resource as spans carry it."""
        put_attributes(self.sender.attributes, cast(Any, resource.attributes))
        self._resource = resource
        self._instruments = Instruments()
        self._reader = InMemoryMetricReader()
        provider = MeterProvider([self._reader], resource, shutdown_on_exit=False)
        self._meter = provider.get_meter("penstock", "0.1.0")
        self._process: _OtherResource | None = None
        if of_process is not None:
            self._add_process_metrics(of_process)
        self._started_ns = time.time_ns()
        self._exported = MetricsExported()

    def counter(self, name: str, unit: str, description: str) -> CumulativeCounter:
        """A counter that is exported from now on."""
        return self._instruments.counter(Description(name, unit, description))

    def histogram(self, name: str, unit: str, description: str) -> CumulativeHistogram:
        """A histogram that is exported from now on."""
        return self._instruments.histogram(Description(name, unit, description))

    def add_gauge(self, name: str, unit: str, description: str, read: Callable[[], float]) -> None:
        """Export what `read` returns with every export of metrics."""
        _add_gauge(self._meter, name, unit, description, read)

    def _add_process_metrics(self, resource: Resource) -> None:
        """Export CPU, memory and threads with every export of metrics, under a resource."""
        meter = self._meter
        if resource != self._resource:
            self._process = _OtherResource(resource)
            meter = self._process.meter
        for gauge in ProcessMetrics().gauges():
            _add_gauge(meter, *gauge)

    def take_spans(self, most: int) -> list[EndedSpan]:
        """Up to so many ended spans, the earliest first; they are the caller's."""
        queue = self.recorder.ended_spans
        return [queue.popleft() for _ in range(min(most, len(queue)))]

    def are_metrics_due(self, now_s: float) -> bool:
        """Whether metrics are to be exported at `now_s` (monotonic)."""
        return self._exported.is_due(self.recorder.durations.requests(), now_s, self._apart_s)

    def take_metrics(self, now_s: float) -> TakenMetrics:
        """All metrics as they are now; `settle` must be told what became of them."""
        recorder = self.recorder
        exported = MetricsExported(recorder.durations.requests(), now_s)
        accounts = recorder.accounts.drain()
        period_ns = (self._started_ns, time.time_ns())
        scopes = counts_as_metrics(recorder.durations, recorder.dropped_spans, accounts, period_ns)
        scopes += self._instruments.scopes(*period_ns)
        # All under one resource: of equal resources the encoder keeps only the last.
        scopes += _scopes(self._reader)
        resources = [ResourceMetrics(self._resource, scopes, "")]
        if self._process is not None:
            resources.append(self._process.metrics())
        return TakenMetrics(resources, accounts, exported)

    def settle(self, taken: TakenMetrics, *, delivered: bool) -> None:
        """Note that metrics were delivered, or put back what would be lost."""
        if delivered:
            self._exported = taken.exported
        else:
            self.recorder.accounts.restore(taken.accounts)


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
