"""The outside world of a service under test: real connections and stores, no telemetry."""

from __future__ import annotations

from random import Random

from penstock.hosting.outside import Outside, dialling
from penstock.otel.telemetry import NO_TELEMETRY, Telemetry
from penstock.service.clock import Clock, SystemClock
from penstock.service.settings import ServiceSettings
from penstock.service.store import open_store


def outside_for_tests(
    settings: ServiceSettings, *, clock: Clock | None = None, telemetry: Telemetry = NO_TELEMETRY
) -> Outside:
    """What `build(settings, …)` of any service takes; chance is seeded."""
    clock = clock or SystemClock()
    return Outside(telemetry, dialling(settings, clock, telemetry), clock, open_store, Random(1))
