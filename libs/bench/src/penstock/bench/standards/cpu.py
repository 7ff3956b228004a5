"""CPU that telemetry spends on a span: taking it in, removing content, settling its trace, packing.

Exports are as our own services send them: some hundred spans of one process each.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.proto.trace.v1 import trace_pb2
from penstock.bench.telemetry.benchmark import ManualClock
from penstock.bench.telemetry.generated import generated_trace
from penstock.telemetry.detection.metric_detector import MetricDetector
from penstock.telemetry.detection.pipeline import DetectionPipeline
from penstock.telemetry.detection.request_detector import RequestDetector
from penstock.telemetry.ingest.exports import ExportReceiver
from penstock.telemetry.ingest.reading import read_protobuf
from penstock.telemetry.spans.redaction import ContentPolicy
from penstock.telemetry.store import TelemetryStore

SEED = 37
WINDOW_BYTES = 64 << 20
TRACES_PER_ROUND = 250


def exports_by_process(rng: random.Random, traces: int) -> Iterator[bytes]:
    """Serialised exports of these traces, one for each process."""
    by_service: dict[str, list[trace_pb2.Span]] = {}
    for _ in range(traces):
        for span, service in generated_trace(rng):
            by_service.setdefault(service, []).append(span)
    for service, spans in by_service.items():
        request = otlp.ExportTraceServiceRequest()
        resource = request.resource_spans.add()
        resource.resource.attributes.add(key="service.name").value.string_value = service
        resource.scope_spans.add().spans.extend(spans)
        yield request.SerializeToString()


async def cpu_us_per_span(rounds: int) -> list[float]:
    """Microseconds of CPU a span, round by round, from bytes to packed traces."""
    clock = ManualClock()
    detection = DetectionPipeline((MetricDetector(), RequestDetector()))
    store = TelemetryStore(clock, WINDOW_BYTES, detection)
    receiver = ExportReceiver(store, ContentPolicy(()), None, 1 << 30)
    rng = random.Random(SEED)
    figures = []
    for _ in range(rounds):
        payloads = list(exports_by_process(rng, TRACES_PER_ROUND))
        before = store.counts.spans
        started_s = time.thread_time()
        for payload in payloads:
            export = read_protobuf(otlp.ExportTraceServiceRequest, payload)
            await receiver.take_traces(export)
        clock.now_s += 60.0
        while store.settle():
            pass
        spent_s = time.thread_time() - started_s
        figures.append(spent_s * 1e6 / (store.counts.spans - before))
    return figures
