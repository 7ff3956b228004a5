"""Telemetry for real: the tracer's buffer and the SDK's instruments, exported in the background by the standard OTLP exporters."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags
from penstock.core import semantics
from penstock.core.call import Call
from penstock.core.config import ServiceSettings
from penstock.core.telemetry import Attributes, Counter, Histogram
from penstock.core.tracing import LiveSpan, Sampler, SpanBuffer, SpanRecord, Tracer

log = logging.getLogger(__name__)

PRODUCTION_TRACES_PER_S = 50.0
FLUSH_S = 0.2
BATCH_SPANS = 2_048
METRICS_EVERY_MS = 5_000
KINDS = {"server": SpanKind.SERVER, "client": SpanKind.CLIENT, "internal": SpanKind.INTERNAL}


class OtlpTelemetry:
    """Telemetry whose spans and metrics go to an OTLP endpoint. Without an endpoint spans are counted and dropped."""

    def __init__(self, service: str, settings: ServiceSettings) -> None:
        instance = getattr(settings, "instance_id", "") or settings.listen
        self._resource = Resource.create({"service.name": service, "service.instance.id": instance})
        self.buffer = SpanBuffer()
        rate = None if settings.profile == "development" else PRODUCTION_TRACES_PER_S
        self._tracer = Tracer(self.buffer, Sampler(rate))
        self._exporter: SpanExporter | None = None
        readers = []
        if settings.otlp_endpoint:
            self._exporter = OTLPSpanExporter(endpoint=settings.otlp_endpoint, insecure=True, timeout=5)
            metrics = OTLPMetricExporter(endpoint=settings.otlp_endpoint, insecure=True, timeout=5)
            readers.append(PeriodicExportingMetricReader(metrics, export_interval_millis=METRICS_EVERY_MS))
        self._provider = MeterProvider(metric_readers=readers, resource=self._resource, shutdown_on_exit=False)
        self._meter = self._provider.get_meter("penstock")
        self._wake = asyncio.Event()
        self._failing = False
        self.buffer.notify = self._wake.set
        self._gauge_dropped()

    def span(self, name: str, call: Call, *, kind: str = "internal", attributes: Attributes | None = None) -> LiveSpan:
        """See Telemetry."""
        return self._tracer.span(name, call, kind, attributes)

    def counter(self, name: str, unit: str, description: str) -> Counter:
        """See Telemetry."""
        return self._meter.create_counter(name, unit, description)

    def histogram(self, name: str, unit: str, description: str) -> Histogram:
        """See Telemetry."""
        return self._meter.create_histogram(name, unit, description)

    def gauge(self, name: str, unit: str, description: str, read: Callable[[], float]) -> None:
        """See Telemetry."""

        def observe(_: CallbackOptions) -> list[Observation]:
            return [Observation(read())]

        self._meter.create_observable_gauge(name, [observe], unit, description)

    def _gauge_dropped(self) -> None:
        self.gauge(
            "penstock.telemetry.spans_dropped",
            "{span}",
            "Spans dropped because the buffer was full",
            lambda: self.buffer.dropped,
        )

    async def run(self) -> None:
        """Export what gathers, a batch at a time; sleeps while nothing does."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await asyncio.sleep(FLUSH_S)
            await self.flush()

    async def flush(self) -> None:
        """Export everything in the buffer. A failed batch is dropped and counted: requests never wait for telemetry."""
        while batch := self.buffer.take(BATCH_SPANS):
            if self._exporter is None:
                self.buffer.dropped += len(batch)
                continue
            result = await asyncio.to_thread(self._exporter.export, [self._readable(span) for span in batch])
            self._note(result is SpanExportResult.SUCCESS, len(batch))

    def _note(self, exported: bool, count: int) -> None:
        if not exported:
            self.buffer.dropped += count
            if not self._failing:
                log.warning("telemetry is unavailable; spans are dropped and counted, requests go on")
        elif self._failing:
            log.info("telemetry is back; %d spans were dropped in all", self.buffer.dropped)
        self._failing = not exported

    def _readable(self, span: SpanRecord) -> ReadableSpan:
        attributes = dict(span.attributes)
        if "/" in span.name:
            attributes |= {semantics.RPC_SYSTEM: "grpc", semantics.RPC_METHOD: span.name}
        if span.code:
            attributes |= {semantics.RPC_STATUS: span.code, semantics.ERROR_TYPE: span.reason or span.code}
        parent = _context(span.trace_id, span.parent_id) if span.parent_id else None
        return ReadableSpan(
            name=span.name,
            context=_context(span.trace_id, span.span_id),
            parent=parent,
            resource=self._resource,
            attributes=attributes,
            kind=KINDS[span.kind],
            status=Status(StatusCode.ERROR, span.reason) if span.code else Status(StatusCode.UNSET),
            start_time=span.start_ns,
            end_time=span.end_ns,
        )

    async def close(self) -> None:
        """Export what is left and stop the exporters, in bounded time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2.0):
                await self.flush()
        if self._exporter is not None:
            await asyncio.to_thread(self._exporter.shutdown)
        await asyncio.to_thread(self._provider.shutdown, 2_000)


def _context(trace_id: int, span_id: int) -> SpanContext:
    return SpanContext(trace_id, span_id, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))


@contextlib.asynccontextmanager
async def start_telemetry(service: str, settings: ServiceSettings) -> AsyncIterator[OtlpTelemetry]:
    """Telemetry for the length of a service's life: exported in the background, flushed at the end."""
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    telemetry = OtlpTelemetry(service, settings)
    exporter = asyncio.create_task(telemetry.run(), name="telemetry export")
    try:
        yield telemetry
    finally:
        exporter.cancel()
        await asyncio.wait([exporter])
        await telemetry.close()
