"""The hall: configuration, store, doors. `python -m penstock.telemetry`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from penstock.api.telemetry.v1 import telemetry_pb2
from penstock.rpc.auth import internal
from penstock.rpc.endpoint import Door
from penstock.rpc.server import Server, ServerLimits
from penstock.service.boot_id import boot_id
from penstock.service.clock import Clock, SystemClock
from penstock.service.program import CannotStart, run
from penstock.telemetry.api.telemetry_service import TelemetryServicer
from penstock.telemetry.detection.metric_detector import MetricDetector
from penstock.telemetry.detection.pressure import Pressure
from penstock.telemetry.detection.refitting import keep_fitting
from penstock.telemetry.detection.request_detector import RequestDetector
from penstock.telemetry.export.forwarding import Forwarder
from penstock.telemetry.export.prometheus import PrometheusDoor
from penstock.telemetry.export.webhook import Webhook
from penstock.telemetry.ingest.host_metrics import watch_host, watch_pressure
from penstock.telemetry.ingest.otlp_service import MOST_BYTES, NAMES, Receiver
from penstock.telemetry.settings import TelemetrySettings
from penstock.telemetry.store import Store

SERVICE = telemetry_pb2.DESCRIPTOR.services_by_name["TelemetryService"]


async def serve(settings: TelemetrySettings) -> None:
    """Serve until told to stop."""
    clock = SystemClock()
    async with opened(settings, clock) as server:
        await server.start()
        await server.wait()


@contextlib.asynccontextmanager
async def opened(settings: TelemetrySettings, clock: Clock) -> AsyncIterator[Server]:
    """The service with its background work, its gRPC server not yet started.

    It records no spans of itself.
    """
    store = Store(clock, settings.telemetry_window_bytes, content_tenants=settings.content_tenants)
    pressure = Pressure(boot_id())
    requests = RequestDetector(pressure)
    store.detectors += [MetricDetector(), requests]
    forwarder = _forwarder(settings, clock)
    if forwarder is not None:
        store.forward = forwarder.put
    webhook = Webhook(settings.alert_webhook_url, settings.alert_webhook_secret, clock)
    if settings.alert_webhook_url:
        store.on_incident.append(webhook.put)
    receiver = Receiver(store, settings.telemetry_pending_spans)
    door = Door(SERVICE, TelemetryServicer(store, forwarder), internal(settings.internal_token))
    prometheus = PrometheusDoor(store)
    await _listen(prometheus, settings.prometheus_listen)
    work = [
        store.run(),
        watch_host(store.take_host, clock),
        watch_pressure(pressure, store.take_host, clock),
        keep_fitting(requests, clock),
        webhook.run(),
        *([forwarder.run()] if forwarder else []),
    ]
    tasks = [asyncio.create_task(job) for job in work]
    limits = ServerLimits(max_message_bytes=MOST_BYTES)
    names = {"foreign": [receiver.add_to], "foreign_names": NAMES}
    try:
        yield Server("telemetry", settings, [door], clock=clock, limits=limits, **names)  # type: ignore[arg-type]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await prometheus.close()
        await webhook.close()
        if forwarder is not None:
            await forwarder.close()


def _forwarder(settings: TelemetrySettings, clock: Clock) -> Forwarder | None:
    if not settings.forward_endpoint:
        return None
    return Forwarder(
        settings.forward_endpoint, settings.home / "forward", settings.forward_queue_bytes, clock
    )


async def _listen(door: PrometheusDoor, listen: str) -> None:
    try:
        if listen:
            await door.start(listen)
    except (OSError, ValueError):
        raise CannotStart(
            f"cannot listen on {listen}: it is in use; set PENSTOCK_PROMETHEUS_LISTEN"
        ) from None


def main() -> None:
    run("telemetry", TelemetrySettings, serve, "What happened, what did it cost, is it normal?")


if __name__ == "__main__":
    main()
