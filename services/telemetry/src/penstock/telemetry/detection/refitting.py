"""Keeps the request detector's idea of what is usual fresh, in a thread. Decides nothing."""

from __future__ import annotations

import asyncio

from penstock.service.clock import Clock
from penstock.telemetry.detection.baseline import fit_baseline
from penstock.telemetry.detection.request_detector import RequestDetector

EVERY_S = 1.0


async def refit_baselines(detector: RequestDetector, clock: Clock) -> None:
    """Fit one group at a time, for ever; never on the event loop."""
    while True:
        if (asked := detector.due()) is not None:
            group, sample = asked
            detector.set_baseline(group, await asyncio.to_thread(fit_baseline, sample))
        await clock.sleep(EVERY_S)
