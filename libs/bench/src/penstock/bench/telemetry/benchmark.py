"""Telemetry: what recording costs, how much the service takes and holds, whether anything is lost,
and whether its analysis is exact.

The detectors of anomalies measure themselves in `telemetry_anomalies`, whose figures join these.
All of it takes 26 minutes, 22 of them a running stack in real time.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import random
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import grpc
import psutil
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.proto.trace.v1 import trace_pb2
from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.bench.harness.options import Options
from penstock.bench.harness.progress import say
from penstock.bench.harness.report import Bound, Number, Plot, Result
from penstock.bench.telemetry import anomalies as telemetry_anomalies
from penstock.hosting.life import serving
from penstock.otel.telemetry import NO_TELEMETRY, Telemetry
from penstock.otel.trace_context import format_traceparent
from penstock.rpc.call import Call
from penstock.rpc.peers.stream import open_channel
from penstock.rpc.peers.unary import UnaryPeer
from penstock.telemetry.build import SERVICE, build
from penstock.telemetry.detection.findings import Detector
from penstock.telemetry.detection.metric_detector import MetricDetector
from penstock.telemetry.detection.pipeline import DetectionPipeline
from penstock.telemetry.detection.request_detector import RequestDetector
from penstock.telemetry.settings import TelemetrySettings
from penstock.telemetry.spans.critical_path import critical_path
from penstock.telemetry.spans.spans import Source, SpanTree, read_span
from penstock.telemetry.store import TelemetryStore
from penstock.testkit.world import world

SPANS_IN_TRACE = 8
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
SERVICES = ("router", "router", "router", "batcher", "batcher", "batcher", "inference", "inference")
KINDS = (
    trace_pb2.Span.SPAN_KIND_SERVER,
    trace_pb2.Span.SPAN_KIND_INTERNAL,
    trace_pb2.Span.SPAN_KIND_CLIENT,
)
BOUNDS = {
    "critical_path_sum_error": Bound("<=", 0),
    "spans_per_s": Bound(">=", 5000),
    "sampled_spans_lost": Bound("<=", 0.001),
}


def run(options: Options) -> Result:
    """Measure."""
    figures: dict[str, Number] = {}
    say("what recording costs; critical paths")
    figures |= _recording(20_000 if options.quick else 200_000)
    figures |= _critical_paths(300 if options.quick else 5_000)
    say("spans taken a second")
    figures |= asyncio.run(_intake(10_000 if options.quick else 120_000))
    say("memory of spans held")
    with multiprocessing.get_context("spawn").Pool(1) as fresh:
        memory, curve = fresh.apply(_memory, (20_000 if options.quick else 1_000_000,))
    figures |= memory
    say("spans lost")
    figures |= asyncio.run(_lost(2_000 if options.quick else 40_000))
    anomalies = telemetry_anomalies.run(options)
    notes = (
        (
            "spans_per_s: exports of 500 spans from one sender over loopback gRPC, sender and "
            "service in one process on one core."
        ),
        (
            "memory_mb_at_1m_spans: growth of a fresh process's resident memory, all indices "
            "included; a smaller run is scaled up."
        ),
        (
            "sampled_spans_lost: spans recorded by a sender and not found in the service "
            "afterwards, as a share."
        ),
    )
    context: dict[str, object] = {"data": "generated", "seeds": 1, "quick": options.quick}
    plot = Plot("Memory of spans held", "thousand spans", "MB", {"resident": curve})
    return Result(
        {**figures, **anomalies.figures},
        {**BOUNDS, **anomalies.bounds},
        {**context, **anomalies.context},
        anomalies.tables,
        (plot,),
        (*notes, *anomalies.notes),
    )


def _recording(count: int) -> dict[str, Number]:
    """Microseconds of one span: none, sampled out, recorded; the best of five interleaved
    rounds.
    """
    telemetry = Telemetry("bench", "127.0.0.1:1", interval_s=3600, max_queued_spans=10)
    sides = {
        "span_none_us": (NO_TELEMETRY, Call()),
        "span_unsampled_us": (telemetry, Call(traceparent=format_traceparent(1, 2, False))),
        "span_recorded_us": (telemetry, Call(traceparent=format_traceparent(1, 2, True))),
    }
    best = dict.fromkeys(sides, float("inf"))
    for _ in range(5):
        for name, (side, call) in sides.items():
            started = time.perf_counter()
            for _ in range(count // 5):
                with side.span("penstock.api.x.v1.XService/Do", call, kind="server"):
                    pass
            best[name] = min(best[name], (time.perf_counter() - started) / (count // 5) * 1e6)
    telemetry.close(0.0)
    return dict(best)


def generated_trace(
    rng: random.Random, spans: int = SPANS_IN_TRACE
) -> list[tuple[trace_pb2.Span, str]]:
    """A trace like the stack's own: nested calls, parallel and late children, errors,
    attributes.
    """
    trace_id, now = rng.randbytes(16), time.time_ns()
    made: list[tuple[trace_pb2.Span, str]] = []
    for number in range(spans):
        parent = made[rng.randrange(max(0, number - 3), number)][0] if number else None
        low = parent.start_time_unix_nano if parent else now
        high = parent.end_time_unix_nano if parent else now + rng.randrange(1, 50_000_000)
        start = rng.randrange(low, high + 1)
        end = rng.randrange(start, high + 1) + (
            rng.randrange(1_000_000) if parent and rng.random() < 0.1 else 0
        )
        span = trace_pb2.Span(
            trace_id=trace_id,
            span_id=rng.randbytes(8),
            parent_span_id=parent.span_id if parent else b"",
            name=f"Service{number % 4}/Do",
            kind=KINDS[number % 3],
            start_time_unix_nano=start if parent else low,
            end_time_unix_nano=end if parent else high,
        )
        for key, value in (
            ("rpc.system.name", "grpc"),
            ("rpc.method", f"penstock.api.x.v1.Service{number % 4}/Do"),
            ("rpc.status_code", "OK"),
            ("penstock.tenant", f"tenant-{rng.randrange(20)}"),
            ("penstock.run.id", f"run-{rng.randrange(1000)}"),
        ):
            span.attributes.add(key=key).value.string_value = value
        if rng.random() < 0.02:
            span.status.code = trace_pb2.Status.STATUS_CODE_ERROR
        made.append((span, SERVICES[number % len(SERVICES)]))
    return made


def _critical_paths(traces: int) -> dict[str, Number]:
    """The largest difference in nanoseconds between a root's duration and the sum of its sections,
    over generated traces.
    """
    rng, worst, spent = random.Random(7), 0, 0.0
    sources = {service: Source(service, "1") for service in SERVICES}
    for _ in range(traces):
        tree = SpanTree(
            [
                read_span(span, sources[service])
                for span, service in generated_trace(rng, rng.randrange(1, 40))
            ]
        )
        started = time.perf_counter()
        sections = critical_path(tree)
        spent += time.perf_counter() - started
        worst = max(
            worst,
            abs(sum(part.end_ns - part.start_ns for part in sections) - tree.root.duration_ns),
        )
    return {"critical_path_sum_error": worst, "critical_path_us": spent / traces * 1e6}


def exports(rng: random.Random, spans: int, size: int = 500) -> Iterator[bytes]:
    """Exports of whole traces, serialised."""
    request, held = otlp.ExportTraceServiceRequest(), 0
    for _ in range(spans // SPANS_IN_TRACE):
        by_service: dict[str, list[trace_pb2.Span]] = {}
        for span, service in generated_trace(rng):
            by_service.setdefault(service, []).append(span)
        for service, members in by_service.items():
            resource = request.resource_spans.add()
            resource.resource.attributes.add(key="service.name").value.string_value = service
            resource.scope_spans.add().spans.extend(members)
        held += SPANS_IN_TRACE
        if held >= size:
            yield request.SerializeToString()
            request, held = otlp.ExportTraceServiceRequest(), 0
    if held:
        yield request.SerializeToString()


@contextlib.asynccontextmanager
async def _service(**settings: object) -> AsyncIterator[tuple[str, UnaryPeer]]:
    with tempfile.TemporaryDirectory() as folder:
        told = {
            "listen": "127.0.0.1:0",
            "internal_token": "bench",
            "prometheus_listen": "",
            "home": Path(folder),
        }
        made = TelemetrySettings(**told, **settings, grace_s=0)  # type: ignore[arg-type]
        async with serving(build(made, world(made)), made) as address:
            peer = UnaryPeer(open_channel(address), SERVICE, token="bench")
            yield address, peer
            await peer.close()


async def _intake(spans: int) -> dict[str, Number]:
    """Spans a second that the service takes and settles, until the last trace is packed."""
    payloads = list(exports(random.Random(11), spans))
    async with _service() as (address, peer), grpc.aio.insecure_channel(address) as channel:
        stub = channel.unary_unary(EXPORT, None, otlp.ExportTraceServiceResponse.FromString)
        started = time.perf_counter()
        for payload in payloads:
            await stub(payload)
        taken_s = time.perf_counter() - started
        intake = await peer.call("GetIntake", pb.GetIntakeRequest(), Call())
        found = await peer.call("SearchTraces", pb.SearchTracesRequest(limit=1), Call())
        settled = await _settling(payloads)
    assert intake.spans == spans // SPANS_IN_TRACE * SPANS_IN_TRACE and found.traces
    return {
        "spans_per_s": intake.spans / (taken_s + settled),
        "taken_spans_per_s": intake.spans / taken_s,
    }


async def _settling(payloads: list[bytes]) -> float:
    """Seconds that settling all these traces takes: rows, service graph, detectors, packing."""
    store = _filled(payloads, (MetricDetector(), RequestDetector()))
    started = time.perf_counter()
    _settle_all(store)
    return time.perf_counter() - started


class _Later:
    """A clock that stands where it is put, so that everything is due."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


def _filled(payloads: list[bytes], detectors: Sequence[Detector] = ()) -> TelemetryStore:
    store = TelemetryStore(_Later(), 4 << 30, DetectionPipeline(detectors))
    for payload in payloads:
        _put(store, payload)
    return store


def _put(store: TelemetryStore, payload: bytes) -> None:
    request = otlp.ExportTraceServiceRequest.FromString(payload)
    for resource in request.resource_spans:
        source = store.window.source_number(
            Source(resource.resource.attributes[0].value.string_value, "1")
        )
        for span in resource.scope_spans[0].spans:
            store.window.add(span, source, store.clock.monotonic())


def _settle_all(store: TelemetryStore) -> None:
    clock = store.clock
    assert isinstance(clock, _Later)
    clock.now += 60.0
    while store.settle():
        pass


def _memory(spans: int) -> tuple[dict[str, Number], tuple[list[float], list[float]]]:
    """Resident megabytes with a million spans held."""
    process, store = psutil.Process(), TelemetryStore(_Later(), 4 << 30)
    gc.collect()
    before = process.memory_info().rss
    xs: list[float] = [0.0]
    ys: list[float] = [0.0]
    rng = random.Random(13)
    for number, payload in enumerate(exports(rng, spans)):
        _put(store, payload)
        if number % 20 == 19:
            _settle_all(store)
            xs.append(store.window.held_spans / 1e3)
            ys.append((process.memory_info().rss - before) / 1e6)
    _settle_all(store)
    gc.collect()
    used_mb = (process.memory_info().rss - before) / 1e6
    held = store.window.held_spans
    packed_mb = store.window.packed_bytes / 1e6
    return {
        "memory_mb_at_1m_spans": used_mb * 1e6 / held,
        "packed_mb_at_1m_spans": packed_mb * 1e6 / held,
    }, (xs, ys)


async def _lost(calls: int) -> dict[str, Number]:
    """Spans that a sender recorded and the service does not hold, as a share; the sender works as
    fast as a busy router.
    """
    async with _service() as (address, peer):
        telemetry = Telemetry("bench", address, interval_s=0.2)
        started = time.perf_counter()
        for number in range(calls):
            with (
                telemetry.span("root", Call(), kind="server") as root,
                telemetry.span("leaf", root.call),
            ):
                pass
            if number % 20 == 0:
                await asyncio.sleep(0.01)
        spent_s = time.perf_counter() - started
        await asyncio.to_thread(telemetry.close, 30.0)
        intake = await peer.call("GetIntake", pb.GetIntakeRequest(), Call())
    sent = 2 * calls
    return {
        "sampled_spans_lost": (sent - intake.spans) / sent,
        "sender_spans_per_s": sent / spent_s,
    }
