"""What surrounds a service under test: real connections and stores, seeded chance, no telemetry."""

from __future__ import annotations

from random import Random

from penstock.hosting.outside import Outside, dialling, dialling_plainly
from penstock.otel.telemetry import NO_TELEMETRY, Telemetry
from penstock.rpc.callers import OPERATOR
from penstock.service.clock import Clock, SystemClock
from penstock.service.settings import ServiceSettings
from penstock.service.store import open_store

SEED = 1


def outside_for_tests(
    settings: ServiceSettings, *, clock: Clock | None = None, telemetry: Telemetry = NO_TELEMETRY
) -> Outside:
    """The second argument of any service's `build(settings, outside)`."""
    clock = clock or SystemClock()
    return Outside(
        telemetry,
        dialling(OPERATOR, settings, clock, telemetry),
        clock,
        open_store,
        Random(SEED),
        dialling_plainly(OPERATOR, settings, clock, telemetry),
    )
