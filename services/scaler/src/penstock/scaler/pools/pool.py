"""One pool as it runs here: who acts for it, and what was decided, from which every answer comes.

Nothing is read or decided here.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from penstock.otel.telemetry import Telemetry
from penstock.scaler.actuate.actuator import Actuator, FleetStatus
from penstock.scaler.decide.measurements import Calibration
from penstock.scaler.decide.metering import Meter
from penstock.scaler.pools.planner import Decision, PoolPlanner
from penstock.scaler.pools.store import KEPT_DECISIONS
from penstock.scaler.samples import Sample


@dataclass
class Pool:
    """One pool, its actuator, and the memory that every answer comes from.

    `starts`: when each instance was asked for that does not serve yet; `serving`, `held`: instances
    and waiting calls as the router counts them; `learnt`: what was last kept or read of what
    decisions taught.
    """

    pool: PoolPlanner
    actuator: Actuator
    decisions: deque[Decision] = field(default_factory=lambda: deque(maxlen=KEPT_DECISIONS))
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    starts: dict[int, float] = field(default_factory=dict)
    fleet: FleetStatus | None = None
    reported_s: float = -math.inf
    learnt: Calibration | None = None
    serving: int | None = None
    held: int = 0

    def __post_init__(self) -> None:
        self.meter = Meter(self.pool.config.interval_s)

    @property
    def answer(self) -> int:
        """Instances wanted: the last decision; before any, the least, and never zero without
        one.
        """
        if self.decisions:
            return self.decisions[0].wanted
        return max(1, self.pool.config.least)

    @property
    def urgent(self) -> tuple[float, float]:
        """What no sample tells yet: work a second of the last few seconds, and work that waits now.

        What a call costs that waits for the first instance is not known: each counts as a second of
        one.
        """
        return self.meter.burst, self.meter.waiting + self.held * (self.pool.given_capacity or 1.0)

    def keep(self, decision: Decision) -> None:
        """Put a decision in force and wake those who watch."""
        self.decisions.appendleft(decision)
        self.changed.set()
        self.changed = asyncio.Event()

    def take(self, samples: Sequence[Sample], now_s: float) -> list[Sample]:
        """Take samples, and learn from a saturated fleet what an instance does.

        Returns those that were new.

        Raises:
            ValueError: a sample is negative or not finite.
        """
        pool = self.pool
        before = pool.samples[-1] if pool.samples else None
        taken = pool.take(samples, now_s)
        new = pool.samples[-taken:] if taken else []
        for sample in new:
            if before is not None and self.fleet is not None and self.fleet.seen:
                ready, seconds = self.fleet.ready, pool.config.interval_s
                pool.capacity.saw(
                    sample.work,
                    (before.backlog, sample.backlog),
                    ready,
                    seconds,
                    pool.given_capacity,
                )
            before = sample
        return new

    def started(self, ready: int, now_s: float) -> None:
        """So many serve now: those that were started lately took so long."""
        for number in [number for number in self.starts if number <= ready]:
            self.pool.lead_times.add(now_s - self.starts.pop(number))

    def show(self, telemetry: Telemetry) -> None:
        """Gauges of this pool."""
        name = self.pool.config.name
        telemetry.gauge(
            f"penstock.scaler.wanted.{name}",
            "{instance}",
            "Instances wanted",
            lambda: float(self.answer),
        )
        telemetry.gauge(
            f"penstock.scaler.work.{name}",
            "",
            "Work of the last interval",
            lambda: self.pool.arrived,
        )
        telemetry.gauge(
            f"penstock.scaler.fallen_back.{name}",
            "1",
            "1 while the reactive rules decide",
            lambda: float(self.pool.fallen_back),
        )
        telemetry.gauge(
            f"penstock.scaler.coverage.{name}",
            "1",
            "Share of samples below the forecast quantile",
            self.pool.coverage,
        )
