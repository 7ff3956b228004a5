"""Telemetry: the cost of a span, the service's intake and memory, lost spans, exact critical paths;
anomalies found in NAB's files, in a simulated fleet and in running stacks.

The figures of the anomaly detectors are measured in `anomalies` beside this module, but for those
of running stacks, which take 22 minutes each: a campaign logs them, and here they are summed.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import random
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import grpc
import psutil
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.bench.harness.intervals import bootstrap, medians, of_share
from penstock.bench.harness.options import Options
from penstock.bench.harness.parts import Part
from penstock.bench.harness.progress import say
from penstock.bench.harness.report import Bound, Number, Plot, Result
from penstock.bench.telemetry import anomalies
from penstock.bench.telemetry.generated import (
    SERVICES,
    SPANS_PER_TRACE,
    exports,
    generated_trace,
)
from penstock.hosting.life import serving
from penstock.otel.spans import format_traceparent
from penstock.otel.telemetry import NO_TELEMETRY, Telemetry
from penstock.rpc.call import Call
from penstock.rpc.peers.stream import open_channel
from penstock.rpc.peers.unary import UnaryPeer
from penstock.telemetry.build import SERVICE, build
from penstock.telemetry.detection.metric_detector import MetricDetector
from penstock.telemetry.detection.pipeline import DetectionPipeline
from penstock.telemetry.detection.request_detector import RequestDetector
from penstock.telemetry.settings import TelemetrySettings
from penstock.telemetry.spans.critical_path import critical_path
from penstock.telemetry.spans.spans import Source, SpanTree, read_span
from penstock.telemetry.store import TelemetryStore
from penstock.testkit.outside import outside_for_tests

EXPORT_METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
ROUNDS = 5
INTAKE_ROUNDS = 8
WINDOW_BYTES = 4 << 30
BOUNDS = {
    "critical_path_sum_error": Bound("<=", 0),
    "spans_per_s": Bound(">=", 5000),
    "sampled_spans_lost": Bound("<=", 0.001),
}
NOTES = (
    (
        "spans_per_s: exports of 500 spans from one sender over loopback gRPC, sender and service"
        " in one process on one core."
    ),
    (
        "memory_mb_at_1m_spans: growth of a fresh process's resident memory, all indices "
        "included; a smaller run is scaled up."
    ),
    (
        "sampled_spans_lost: spans recorded by a sender and not found in the service afterwards, "
        "as a share."
    ),
)


def run(options: Options) -> Result:
    """Measure the telemetry service, and then its anomaly detectors."""
    figures: dict[str, Number] = {}
    say("cost of recording; critical paths")
    figures |= _recording(20_000 if options.quick else 200_000)
    figures |= _critical_paths(300 if options.quick else 5_000)
    say("spans taken in a second")
    intake = [
        asyncio.run(_intake(10_000 if options.quick else 15_000))
        for _ in range(1 if options.quick else INTAKE_ROUNDS)
    ]
    figures |= medians(intake)
    say("memory of spans held")
    with multiprocessing.get_context("spawn").Pool(1) as fresh:
        memory, curve = fresh.apply(_memory, (20_000 if options.quick else 1_000_000,))
    figures |= memory
    say("spans lost")
    lost = asyncio.run(_lost(2_000 if options.quick else 40_000))
    figures |= lost.figures
    detectors = anomalies.run(options)
    context: dict[str, object] = {"data": "generated", "seeds": 1, "quick": options.quick}
    plot = Plot("Memory of spans held", "thousand spans", "MB", {"resident": curve})
    return Result(
        {**figures, **detectors.figures},
        {**BOUNDS, **detectors.bounds},
        {**context, **detectors.context},
        detectors.tables,
        (plot,),
        (*NOTES, *detectors.notes),
        {**bootstrap(intake, medians, "rounds"), **lost.intervals, **detectors.intervals},
        frozenset({"critical_path_sum_error"}),
    )


def _recording(count: int) -> dict[str, Number]:
    """Microseconds of a span that is not made, sampled out, recorded: best of five rounds."""
    telemetry = Telemetry("bench", "127.0.0.1:1", interval_s=3600, max_queued_spans=10)
    sides = {
        "span_none_us": (NO_TELEMETRY, Call()),
        "span_unsampled_us": (telemetry, Call(traceparent=format_traceparent(1, 2, False))),
        "span_recorded_us": (telemetry, Call(traceparent=format_traceparent(1, 2, True))),
    }
    best = dict.fromkeys(sides, float("inf"))
    spans = count // ROUNDS
    for _ in range(ROUNDS):
        for name, (side, call) in sides.items():
            started_s = time.perf_counter()
            for _ in range(spans):
                with side.span("penstock.api.x.v1.XService/Do", call, kind="server"):
                    pass
            best[name] = min(best[name], (time.perf_counter() - started_s) / spans * 1e6)
    telemetry.close(0.0)
    return dict(best)


def _critical_paths(traces: int) -> dict[str, Number]:
    """Largest difference in ns between a root's duration and the sum of its critical path."""
    rng = random.Random(7)
    max_error_ns = 0
    spent_s = 0.0
    sources = {service: Source(service, "1") for service in SERVICES}
    for _ in range(traces):
        spans = generated_trace(rng, rng.randrange(1, 40))
        tree = SpanTree([read_span(span, sources[service]) for span, service in spans])
        started_s = time.perf_counter()
        sections = critical_path(tree)
        spent_s += time.perf_counter() - started_s
        path_ns = sum(part.end_ns - part.start_ns for part in sections)
        max_error_ns = max(max_error_ns, abs(path_ns - tree.root.duration_ns))
    return {"critical_path_sum_error": max_error_ns, "critical_path_us": spent_s / traces * 1e6}


@contextlib.asynccontextmanager
async def _service() -> AsyncIterator[tuple[str, UnaryPeer]]:
    """A telemetry service in this process: its address, and a peer that calls it."""
    with tempfile.TemporaryDirectory() as folder:
        settings = TelemetrySettings(
            listen="127.0.0.1:0",
            internal_token="bench",
            prometheus_listen="",
            otlp_http_listen="",
            home=Path(folder),
            grace_s=0,
        )
        outside = outside_for_tests(settings)
        async with serving(build(settings, outside), settings) as address:
            peer = UnaryPeer(open_channel(address), SERVICE, token="bench")
            yield address, peer
            await peer.close()


async def _intake(spans: int) -> dict[str, float]:
    """Spans a second that the service takes in and settles, until the last trace is packed."""
    payloads = list(exports(random.Random(11), spans))
    async with _service() as (address, peer), grpc.aio.insecure_channel(address) as channel:
        export = channel.unary_unary(
            EXPORT_METHOD, None, otlp.ExportTraceServiceResponse.FromString
        )
        started_s = time.perf_counter()
        for payload in payloads:
            await export(payload)
        intake_s = time.perf_counter() - started_s
        intake = await peer.call("GetIntake", pb.GetIntakeRequest(), Call())
        found = await peer.call("SearchTraces", pb.SearchTracesRequest(limit=1), Call())
        settling_s = _settling_s(payloads)
    assert intake.spans == spans // SPANS_PER_TRACE * SPANS_PER_TRACE and found.traces
    return {
        "spans_per_s": intake.spans / (intake_s + settling_s),
        "taken_spans_per_s": intake.spans / intake_s,
    }


def _settling_s(payloads: Sequence[bytes]) -> float:
    """Seconds to settle all these traces: rows, service graph, detectors, packing."""
    store = TelemetryStore(
        ManualClock(), WINDOW_BYTES, DetectionPipeline((MetricDetector(), RequestDetector()))
    )
    for payload in payloads:
        _put(store, payload)
    started_s = time.perf_counter()
    _settle_all(store)
    return time.perf_counter() - started_s


class ManualClock:
    """A monotonic clock that is moved by assigning `now_s`."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        """The assigned time in seconds."""
        return self.now_s

    def time(self) -> float:
        """The machine's Unix time."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Move the clock at once."""
        self.now_s += seconds


def _put(store: TelemetryStore, payload: bytes) -> None:
    request = otlp.ExportTraceServiceRequest.FromString(payload)
    for resource in request.resource_spans:
        source = store.window.source_number(
            Source(resource.resource.attributes[0].value.string_value, "1")
        )
        for span in resource.scope_spans[0].spans:
            store.window.add(span, source, store.clock.monotonic())


def _settle_all(store: TelemetryStore) -> None:
    """Let a minute pass, so that every trace is due, and settle all of them."""
    clock = store.clock
    assert isinstance(clock, ManualClock)
    clock.now_s += 60.0
    while store.settle():
        pass


def _memory(spans: int) -> tuple[dict[str, Number], tuple[list[float], list[float]]]:
    """Resident megabytes a million spans, and the curve of megabytes by thousand spans."""
    process = psutil.Process()
    store = TelemetryStore(ManualClock(), WINDOW_BYTES)
    gc.collect()
    before = process.memory_info().rss
    thousand_spans: list[float] = [0.0]
    megabytes: list[float] = [0.0]
    for number, payload in enumerate(exports(random.Random(13), spans)):
        _put(store, payload)
        if number % 20 == 19:
            _settle_all(store)
            thousand_spans.append(store.window.held_spans / 1e3)
            megabytes.append((process.memory_info().rss - before) / 1e6)
    _settle_all(store)
    gc.collect()
    grown_mb = (process.memory_info().rss - before) / 1e6
    held = store.window.held_spans
    figures: dict[str, Number] = {
        "memory_mb_at_1m_spans": grown_mb * 1e6 / held,
        "packed_mb_at_1m_spans": store.window.packed_bytes / 1e6 * 1e6 / held,
    }
    return figures, (thousand_spans, megabytes)


async def _lost(calls: int) -> Part:
    """Share of spans that a sender recorded and the service does not hold.

    The sender is as fast as a busy router.
    """
    async with _service() as (address, peer):
        telemetry = Telemetry("bench", address, interval_s=0.2)
        started_s = time.perf_counter()
        for number in range(calls):
            with (
                telemetry.span("root", Call(), kind="server") as root,
                telemetry.span("leaf", root.call),
            ):
                pass
            if number % 20 == 0:
                await asyncio.sleep(0.01)
        spent_s = time.perf_counter() - started_s
        await asyncio.to_thread(telemetry.close, 30.0)
        intake = await peer.call("GetIntake", pb.GetIntakeRequest(), Call())
    sent = 2 * calls
    lost = sent - intake.spans
    figures = {"sampled_spans_lost": lost / sent, "sender_spans_per_s": sent / spent_s}
    return Part(figures, intervals={"sampled_spans_lost": of_share(lost, sent, "spans")})
