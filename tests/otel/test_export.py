"""Exporting: services of one process share an export to the same receiver, each under its own
resource, and each leaves when it ends.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from penstock.otel.exporters import Exporters
from penstock.otel.telemetry import Telemetry
from penstock.rpc.call import Call
from penstock.testkit.eventually import eventually


@dataclass
class Receiver(
    trace_service_pb2_grpc.TraceServiceServicer, metrics_service_pb2_grpc.MetricsServiceServicer
):
    """Keeps what it was sent."""

    address: str = ""
    spans: list[list[tuple[str, list[str]]]] = field(default_factory=list)
    """By export: (service, names of its spans)."""
    services_with_metrics: list[str] = field(default_factory=list)

    def Export(self, request: Any, context: Any) -> Any:
        if isinstance(request, metrics.ExportMetricsServiceRequest):
            self.services_with_metrics += [_service(each) for each in request.resource_metrics]
            return metrics.ExportMetricsServiceResponse()
        self.spans.append(
            [
                (_service(each), [span.name for scope in each.scope_spans for span in scope.spans])
                for each in request.resource_spans
            ]
        )
        return traces.ExportTraceServiceResponse()


def _service(each: Any) -> str:
    (name,) = (
        pair.value.string_value for pair in each.resource.attributes if pair.key == "service.name"
    )
    return str(name)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(made, server)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(made, server)
    made.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield made
    server.stop(None).wait()


def exporting_threads() -> int:
    return sum(thread.name == "telemetry-export" for thread in threading.enumerate())


def test_services_of_a_process_share_an_export(receiver: Receiver) -> None:
    before, exporters = exporting_threads(), Exporters()
    both = [
        Telemetry(name, receiver.address, interval_s=3600, exporters=exporters)
        for name in ("one", "two")
    ]
    for telemetry in both:
        with telemetry.span("work", Call()):
            pass
    assert exporting_threads() == before + 1

    both[0].close(5.0)
    assert receiver.spans == [[("one", ["work"]), ("two", ["work"])]]
    assert receiver.services_with_metrics == ["one"]

    with both[1].span("more", Call()):
        pass
    both[1].close(5.0)
    assert receiver.spans[1:] == [[("two", ["more"])]]
    assert receiver.services_with_metrics == ["one", "two"]
    assert exporting_threads() == before


def test_a_service_that_begins_after_the_others_ended_is_exported(receiver: Receiver) -> None:
    exporters = Exporters()
    for name in ("one", "two"):
        telemetry = Telemetry(name, receiver.address, interval_s=3600, exporters=exporters)
        with telemetry.span("work", Call()):
            pass
        telemetry.close(5.0)
    assert receiver.spans == [[("one", ["work"])], [("two", ["work"])]]


async def test_a_receiver_that_is_gone_costs_each_service_its_own_spans() -> None:
    exporters = Exporters()
    both = [
        Telemetry(name, "127.0.0.1:1", interval_s=0.01, exporters=exporters, max_queued_spans=50)
        for name in ("one", "two")
    ]
    for _ in range(3):
        with both[0].span("work", Call()):
            pass
    await eventually(lambda: not both[0].ended_spans)
    for telemetry in both:
        telemetry.close(0.2)
    await eventually(lambda: both[0].dropped_spans == 3)
    assert both[1].dropped_spans == 0
