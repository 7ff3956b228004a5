"""The assembly of telemetry: the store, what comes in, detectors, what is passed on.

Telemetry records no spans of itself.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from penstock.api.telemetry.v1 import telemetry_pb2
from penstock.hosting.assembly import Assembly
from penstock.hosting.grpc_server import GrpcServer, ServerLimits
from penstock.hosting.http_port import HttpPort
from penstock.hosting.outside import Outside
from penstock.hosting.service import Port, Service
from penstock.otel.process_metrics import boot_id
from penstock.rpc.auth import services_only
from penstock.rpc.endpoint import Endpoint
from penstock.service.background import Background
from penstock.service.clock import Clock
from penstock.telemetry.api.telemetry_service import TelemetryServicer
from penstock.telemetry.detection.cpu_pressure import CpuPressure
from penstock.telemetry.detection.incidents import IncidentTracker
from penstock.telemetry.detection.metric_detector import MetricDetector
from penstock.telemetry.detection.pipeline import DetectionPipeline
from penstock.telemetry.detection.refitting import refit_baselines
from penstock.telemetry.detection.request_detector import RequestDetector
from penstock.telemetry.export.forwarding import Forwarder
from penstock.telemetry.export.prometheus import metrics_app
from penstock.telemetry.ingest.exports import MAX_EXPORT_BYTES, ExportReceiver
from penstock.telemetry.ingest.host_metrics import record_cpu_pressure, record_host_metrics
from penstock.telemetry.ingest.otlp_http import otlp_app
from penstock.telemetry.ingest.otlp_service import SERVICE_NAMES, OtlpGrpc
from penstock.telemetry.settings import TelemetrySettings
from penstock.telemetry.spans.redaction import ContentPolicy
from penstock.telemetry.store import TelemetryStore

if TYPE_CHECKING:
    from penstock.telemetry.export.webhook import Webhook

NAME = "telemetry"
SERVICE = telemetry_pb2.DESCRIPTOR.services_by_name["TelemetryService"]


def build(settings: TelemetrySettings, outside: Outside) -> Service:
    """Make telemetry from its settings and the outside world."""
    clock = outside.clock
    pressure = CpuPressure(boot_id())
    requests = RequestDetector(pressure)
    webhook = _webhook(settings, clock)
    incidents = IncidentTracker((webhook.enqueue,) if webhook is not None else ())
    detection = DetectionPipeline((MetricDetector(), requests), incidents)
    store = TelemetryStore(
        clock,
        settings.telemetry_window_bytes,
        detection,
        max_series_bytes=settings.telemetry_series_bytes,
    )
    forwarder = _forwarder(settings, clock)
    content = ContentPolicy(settings.content_tenants)
    forward = forwarder.enqueue if forwarder is not None else None
    receiver = ExportReceiver(store, content, forward, settings.telemetry_pending_spans)
    servicer = TelemetryServicer(store, forwarder)
    endpoint = Endpoint(SERVICE, servicer, services_only(SERVICE, settings.tokens))
    background = Background()

    async def open_() -> None:
        record = store.record_host_metric
        background.start(store.run(), "settle traces")
        background.start(record_host_metrics(record, clock), "host metrics")
        background.start(record_cpu_pressure(pressure, record, clock), "host pressure")
        background.start(refit_baselines(requests, clock), "fit baselines")
        if webhook is not None:
            background.start(webhook.run(), "webhook")
        if forwarder is not None:
            background.start(forwarder.run(), "forwarding")

    async def close() -> None:
        await background.close()
        if webhook is not None:
            await webhook.close()
        if forwarder is not None:
            await forwarder.close()

    ports = [*_http_ports(settings, store, receiver)]
    ports.append(_own_port(settings, endpoint, receiver, clock))
    return Service(NAME, ports, [endpoint], open=open_, close=close)


def _http_ports(
    settings: TelemetrySettings, store: TelemetryStore, receiver: ExportReceiver
) -> Iterator[Port]:
    """The ports of scrapers and of OTLP over HTTP, where they are set."""
    port = functools.partial(HttpPort, tls=settings.tls, demands_certificate=True)
    if settings.prometheus_listen:
        app = metrics_app(store)
        yield port(settings.prometheus_listen, app, "PENSTOCK_PROMETHEUS_LISTEN")
    if settings.otlp_http_listen:
        app = otlp_app(receiver)
        yield port(settings.otlp_http_listen, app, "PENSTOCK_OTLP_HTTP_LISTEN")


def _own_port(
    settings: TelemetrySettings, endpoint: Endpoint, receiver: ExportReceiver, clock: Clock
) -> GrpcServer:
    """The port of OTLP over gRPC and of the queries."""
    return GrpcServer(
        NAME,
        settings,
        [endpoint],
        foreign=[OtlpGrpc(receiver).add_to],
        foreign_names=SERVICE_NAMES,
        clock=clock,
        limits=ServerLimits(max_message_bytes=MAX_EXPORT_BYTES),
    )


def _webhook(settings: TelemetrySettings, clock: Clock) -> Webhook | None:
    if not settings.alert_webhook_url:
        return None
    from penstock.telemetry.export.webhook import Webhook  # with httpx

    return Webhook(settings.alert_webhook_url, settings.alert_webhook_secret, clock)


def _forwarder(settings: TelemetrySettings, clock: Clock) -> Forwarder | None:
    if not settings.forward_endpoint:
        return None
    folder = settings.home / "forward"
    return Forwarder(settings.forward_endpoint, folder, settings.forward_queue_bytes, clock)


ASSEMBLY = Assembly(
    NAME, TelemetrySettings, build, "What happened, what did it cost, is it normal?"
)
