"""Exports of OTLP, made up, and a receiver that takes them into a store without a network."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.metrics.v1 import metrics_pb2
from penstock.telemetry.export.exposition import render
from penstock.telemetry.export.prometheus import page_of
from penstock.telemetry.ingest.exports import ExportReceiver
from penstock.telemetry.ingest.reading import read_protobuf
from penstock.telemetry.spans.redaction import ContentPolicy
from penstock.telemetry.store import TelemetryStore
from penstock.testkit.clock import FakeClock

CUMULATIVE = metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE
DELTA = metrics_pb2.AGGREGATION_TEMPORALITY_DELTA


class Intake:
    """A store and what is sent to it."""

    def __init__(self, tenants: tuple[str, ...] = ()) -> None:
        self.clock = FakeClock(1000.0)
        self.store = TelemetryStore(self.clock, 1 << 20)
        self._receiver = ExportReceiver(self.store, ContentPolicy(tenants), None, 1000)

    async def traces(self, payload: bytes) -> trace_service_pb2.ExportTraceServiceResponse:
        kind = trace_service_pb2.ExportTraceServiceRequest
        response: Any = await self._receiver.take_traces(read_protobuf(kind, payload))
        return response

    async def metrics(
        self, *metrics: metrics_pb2.Metric, instance: str = "1", **resource: str
    ) -> metrics_service_pb2.ExportMetricsServiceResponse:
        request = metrics_service_pb2.ExportMetricsServiceRequest()
        sender = request.resource_metrics.add()
        attributes = {"service.name": "app", "service.instance.id": instance, **resource}
        for name, value in attributes.items():
            sender.resource.attributes.add(key=name).value.string_value = value
        sender.scope_metrics.add().metrics.extend(metrics)
        return await self.metrics_payload(request.SerializeToString())

    async def metrics_payload(
        self, payload: bytes
    ) -> metrics_service_pb2.ExportMetricsServiceResponse:
        kind = metrics_service_pb2.ExportMetricsServiceRequest
        response: Any = await self._receiver.take_metrics(read_protobuf(kind, payload))
        return response

    async def logs(self, payload: bytes) -> logs_service_pb2.ExportLogsServiceResponse:
        kind = logs_service_pb2.ExportLogsServiceRequest
        response: Any = await self._receiver.take_logs(read_protobuf(kind, payload))
        return response

    def page(self, *, open_metrics: bool = False) -> list[str]:
        """The lines of the scrape, as it stands."""
        return render(page_of(self.store, open_metrics)).split("\n")[:-1]


def counter(name: str, *amounts: float, unit: str = "", **labels: str) -> metrics_pb2.Metric:
    """A cumulative counter with a point for each amount; `a__b="x"` is the label `a.b`."""
    metric = metrics_pb2.Metric(name=name, unit=unit)
    metric.sum.is_monotonic, metric.sum.aggregation_temporality = True, CUMULATIVE
    for amount in amounts:
        point = metric.sum.data_points.add(time_unix_nano=10**18)
        if isinstance(amount, int):
            point.as_int = amount
        else:
            point.as_double = amount
        _label(point, labels)
    return metric


def gauge(name: str, value: float, labels: Iterable[tuple[str, str]] = ()) -> metrics_pb2.Metric:
    """A gauge with one point."""
    metric = metrics_pb2.Metric(name=name)
    point = metric.gauge.data_points.add(time_unix_nano=10**18, as_double=value)
    _label(point, dict(labels))
    return metric


def _label(point: Any, labels: dict[str, str]) -> None:
    for name, value in labels.items():
        point.attributes.add(key=name.replace("__", ".")).value.string_value = value


def export_of(*metrics: metrics_pb2.Metric) -> metrics_service_pb2.ExportMetricsServiceRequest:
    """An export of these metrics by a sender without a name."""
    request = metrics_service_pb2.ExportMetricsServiceRequest()
    request.resource_metrics.add().scope_metrics.add().metrics.extend(metrics)
    return request
