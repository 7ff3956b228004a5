"""The background task that keeps the request detector's baselines fresh."""

from __future__ import annotations

import asyncio

from penstock.service.clock import Clock, next_tick
from penstock.telemetry.detection.group_state import fit_baseline
from penstock.telemetry.detection.request_detector import RequestDetector

INTERVAL_S = 1.0


async def refit_baselines(detector: RequestDetector, clock: Clock) -> None:
    """Fit one group at a time, in a thread; runs until it is cancelled."""
    while True:
        if (fit := detector.next_fit()) is not None:
            baseline = await asyncio.to_thread(fit_baseline, fit.sample)
            detector.set_baseline(fit.group, baseline)
        await next_tick(clock, INTERVAL_S)
