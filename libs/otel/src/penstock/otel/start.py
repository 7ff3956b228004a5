"""Telemetry for the length of a service's life."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from penstock.otel.telemetry import Telemetry
from penstock.service.settings import ServiceSettings


@contextlib.asynccontextmanager
async def start_telemetry(
    service: str, settings: ServiceSettings, *, edge: bool = False
) -> AsyncIterator[Telemetry]:
    """Telemetry for the length of a service's life: exported in the background, flushed at the end.

    `edge`: see Telemetry.
    """
    instance = getattr(settings, "instance_id", "") or settings.advertise or settings.listen
    telemetry = Telemetry(
        service,
        settings.otlp_endpoint,
        profile=settings.profile,
        edge=edge,
        instance=instance,
        interval_s=1.0,
    )
    try:
        yield telemetry
    finally:
        await asyncio.to_thread(telemetry.close)
