"""One pool at work: its planner, its actuator, and its decisions, from which every caller is
answered.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Sequence

from penstock.otel.telemetry import Telemetry
from penstock.scaler.actuate.actuator import Actuator, FleetStatus
from penstock.scaler.decide.measurements import NO_CALIBRATION, DemandMeter, ServedInterval
from penstock.scaler.forecast.features import Sample
from penstock.scaler.pools.planner import Decision, LiveState, PoolPlanner
from penstock.scaler.pools.store import MAX_DECISIONS, PoolRecord

HELD_CALL_S = 1.0
"""What a call costs that waits for the first instance is unknown; it counts as so many seconds of
one instance.
"""


class Pool:
    """One pool at work.

    Attributes:
        decisions: the newest first.
        changed: set, and replaced by a new event, when a decision is put in force.
        fleet: instances as last seen; None before.
        reported_s: when a client last reported demand, in Unix seconds.
        serving: instances that serve, as the router counts them; None where it does not say.
        held_calls: calls that wait at the router for the first instance.
        stored_calibration: the planner's calibration as it was last stored or restored.
    """

    def __init__(self, planner: PoolPlanner, actuator: Actuator) -> None:
        self.planner = planner
        self.actuator = actuator
        self.config = planner.config
        self.meter = DemandMeter(planner.config.interval_s)
        self.decisions: deque[Decision] = deque(maxlen=MAX_DECISIONS)
        self.changed = asyncio.Event()
        self.fleet: FleetStatus | None = None
        self.reported_s = -math.inf
        self.serving: int | None = None
        self.held_calls = 0
        self._started_at_s: dict[int, float] = {}
        """When each instance was asked for that does not serve yet, by its number."""
        self.stored_calibration = NO_CALIBRATION

    @property
    def name(self) -> str:
        """The pool's name."""
        return self.config.name

    @property
    def wanted(self) -> int:
        """Instances wanted: the last decision; before any, the minimum, but never zero."""
        if self.decisions:
            return self.decisions[0].wanted
        return max(1, self.config.min_instances)

    def live_state(self, fleet: FleetStatus, last_wanted: int) -> LiveState:
        """Return what the planner cannot know from samples."""
        held_work = self.held_calls * (self.planner.nominal_capacity or 1.0) * HELD_CALL_S
        return LiveState(
            current=fleet.wanted,
            ready=fleet.ready,
            last_wanted=last_wanted,
            burst=self.meter.burst,
            backlog=self.meter.backlog + held_work,
        )

    def put_in_force(self, decision: Decision) -> None:
        """Answer with this decision from now on, and wake those who wait for a change."""
        self.decisions.appendleft(decision)
        self.changed.set()
        self.changed = asyncio.Event()

    def restore(self, record: PoolRecord, now_s: float) -> None:
        """Take up what the store has about the pool when the scaler starts."""
        self.planner.take(record.samples, now_s)
        # History only shows what is usual; present demand is unknown until it is reported.
        self.planner.measured_at_s = -math.inf
        self.decisions.extend(record.decisions)
        self._restore_calibration(record)

    def follow(self, record: PoolRecord) -> None:
        """Take over decisions and calibration of the scaler that leads."""
        for decision in record.decisions:
            if not self.decisions or decision.made_s > self.decisions[0].made_s:
                self.put_in_force(decision)
        self._restore_calibration(record)

    def _restore_calibration(self, record: PoolRecord) -> None:
        kept = record.calibration
        if kept is not None and kept != self.stored_calibration:
            self.planner.calibration = kept
            self.stored_calibration = kept

    def take(self, samples: Sequence[Sample], now_s: float) -> list[Sample]:
        """Take samples, and measure the capacity of an instance. Returns those that were new.

        Raises:
            ValueError: a sample is negative or not finite.
        """
        planner = self.planner
        before = planner.samples[-1] if planner.samples else None
        taken = planner.take(samples, now_s)
        new = planner.samples[-taken:] if taken else []
        for sample in new:
            if before is not None and self.fleet is not None and self.fleet.is_observed:
                self._measure_capacity(before, sample, self.fleet.ready)
            before = sample
        return new

    def _measure_capacity(self, before: Sample, sample: Sample, ready: int) -> None:
        interval_s = self.config.interval_s
        interval = ServedInterval(sample.work, before.backlog, sample.backlog, ready, interval_s)
        self.planner.capacity.observe(interval, self.planner.nominal_capacity)

    def record_starts(self, before: int, wanted: int, now_s: float) -> None:
        """Remember when instances were asked for, to measure how long they take to serve."""
        for number in range(before + 1, wanted + 1):
            self._started_at_s[number] = now_s

    def record_ready(self, ready: int, now_s: float) -> None:
        """Measure the lead times of the instances that serve by now."""
        for number in [number for number in self._started_at_s if number <= ready]:
            self.planner.lead_times.record(now_s - self._started_at_s.pop(number))

    def register_gauges(self, telemetry: Telemetry) -> None:
        """Export the pool's gauges."""
        prefix, name = "penstock.scaler", self.name
        telemetry.gauge(
            f"{prefix}.wanted.{name}", "{instance}", "Instances wanted", lambda: float(self.wanted)
        )
        telemetry.gauge(
            f"{prefix}.work.{name}",
            "",
            "Work of the last interval",
            lambda: self.planner.last_work,
        )
        telemetry.gauge(
            f"{prefix}.fallen_back.{name}",
            "1",
            "1 while the reactive rules decide",
            lambda: float(self.planner.forecasts.fallen_back),
        )
        telemetry.gauge(
            f"{prefix}.coverage.{name}",
            "1",
            "Share of samples below the forecast quantile",
            lambda: self.planner.forecasts.coverage,
        )
