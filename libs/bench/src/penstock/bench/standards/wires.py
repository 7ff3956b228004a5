"""OpenTelemetry's own exporters over every protocol, and whether as many spans arrive over each."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.bench.standards.service import RunningTelemetry, running_telemetry
from penstock.rpc.call import Call

NODE_SCRIPT = Path(__file__).parents[1] / "peers" / "otel_exporters.mjs"
NODE_MODULES = Path("node_modules/@opentelemetry/sdk-trace")
"""Where `make standards` puts Node's exporters."""


@dataclass(frozen=True)
class Arrived:
    """Spans sent and spans that arrived, by protocol."""

    sent: int
    held: Mapping[str, int]

    @property
    def lost(self) -> int:
        """Spans that did not arrive, over all protocols, or arrived that were not sent."""
        return sum(abs(self.sent - held) for held in self.held.values())


async def arrived(folder: Path, spans: int) -> Arrived:
    """Send the same spans over each protocol, by Python's exporters and, where they are, Node's."""
    held: dict[str, int] = {}
    async with running_telemetry(folder) as telemetry:
        for name, exporter in _python_exporters(telemetry).items():
            before = await _spans(telemetry)
            await asyncio.to_thread(_send, exporter, spans)
            held[name] = await _spans(telemetry) - before
        for name in ("grpc", "proto", "json") if _has_node() else ():
            before = await _spans(telemetry)
            await _send_from_node(telemetry, name, spans)
            held[f"node {name}"] = await _spans(telemetry) - before
    return Arrived(spans, held)


def _python_exporters(telemetry: RunningTelemetry) -> dict[str, Callable[[], SpanExporter]]:
    url = f"http://{telemetry.http}/v1/traces"
    return {
        "python grpc": lambda: GrpcExporter(f"http://{telemetry.address}", insecure=True),
        "python http": lambda: HttpExporter(url),
        "python http, gzip": lambda: HttpExporter(url, compression=Compression.Gzip),
        "python http, deflate": lambda: HttpExporter(url, compression=Compression.Deflate),
    }


async def _spans(telemetry: RunningTelemetry) -> int:
    intake = await telemetry.peer.call("GetIntake", pb.GetIntakeRequest(), Call())
    return int(intake.spans - intake.duplicate_spans)


def _send(make: Callable[[], SpanExporter], spans: int) -> None:
    resource = Resource({"service.name": "exporter", "list": ["a", "b"]})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    processor = BatchSpanProcessor(make(), max_queue_size=spans + 512, max_export_batch_size=512)
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("standards", "1")
    for number in range(spans // 2):
        with tracer.start_as_current_span("outer", attributes={"number": number}) as span:
            span.add_event("half", {"done": True})
            with tracer.start_as_current_span("inner", attributes={"text": "ä 日本 😀"}):
                pass
    processor.force_flush(60_000)
    provider.shutdown()


def _has_node() -> bool:
    return shutil.which("node") is not None and NODE_MODULES.exists()


async def _send_from_node(telemetry: RunningTelemetry, protocol: str, spans: int) -> None:
    address = telemetry.address if protocol == "grpc" else telemetry.http
    # Node looks for packages in the folders above a script, so it is given one beside them.
    script = NODE_MODULES.parent / "otel_exporters.mjs"
    script.write_text(NODE_SCRIPT.read_text(encoding="utf-8"), encoding="utf-8")
    process = await asyncio.create_subprocess_exec("node", script, protocol, address, str(spans))
    if await process.wait() != 0:
        raise RuntimeError(f"Node's exporter over {protocol} failed")
