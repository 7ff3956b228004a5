"""Plans one pool: takes demand samples, forecasts, and decides how many instances there should be.

No network and no clock: the time is an argument.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from penstock.scaler.decide.decision import DecisionState, PoolState, decide
from penstock.scaler.decide.measurements import Calibration, CapacityEstimate, LeadTimes
from penstock.scaler.forecast.features import DAY_S, Sample
from penstock.scaler.forecast.horizon import HorizonForecasts, Rebuilt
from penstock.scaler.pool_settings import PoolConfig

MAX_GAP = 1000
"""A silence of more intervals than this begins a new history."""
MIN_SAMPLES = 1000
MAX_SAMPLES = 12_000
KEPT_S = 14 * DAY_S


@dataclass(frozen=True)
class Decision:
    """One decision and what it rests on. Field names are keys in the store.

    Args:
        made_s: when, in Unix seconds.
        current: instances asked for before.
        wanted: instances there should be, of which `on_demand` are not on spot.
        forecast: work of one interval at the quantile `level`.
        horizon_s: how far ahead was forecast.
        floor: instances that present demand alone needs.
        reason: which rule decided, for people.
    """

    made_s: float
    pool: str
    current: int
    wanted: int
    on_demand: int
    forecast: float
    level: float
    horizon_s: float
    floor: int
    reason: str


@dataclass(frozen=True)
class LiveState:
    """What a planner cannot know from samples.

    Args:
        current: instances asked for, of which `ready` serve.
        last_wanted: the last decision; it stands until demand is reported.
        burst: work a second over the last few seconds.
        backlog: work that waits now.
    """

    current: int
    ready: int
    last_wanted: int = 0
    burst: float = 0.0
    backlog: float = 0.0


@dataclass(frozen=True)
class Evaluation:
    """A decision before it is put in force.

    Args:
        state: to be kept for the next decision once this one is in force.
        is_deferred: whether a rate or the cost of a start holds back a change that is still due.
    """

    decision: Decision
    state: DecisionState
    is_deferred: bool


class PoolPlanner:
    """Keeps one pool's history and forecasts, and decides for it.

    `nominal_capacity` (work of one instance a second; 0 where unknown) is set by whoever reads it
    from a cost model. `measured_at_s`: when demand was last reported, in Unix seconds.
    """

    def __init__(self, config: PoolConfig) -> None:
        self.config = config
        self.policy = config.policy
        self.level = config.quantile_level
        self.nominal_capacity = config.capacity
        self.lead_times = LeadTimes(config.initial_lead_time_s)
        self.capacity = CapacityEstimate()
        self.forecasts = HorizonForecasts(self.level, config.hold_steps, config.interval_s)
        self.samples: list[Sample] = []
        self.measured_at_s = -math.inf
        self.state = DecisionState()

    @property
    def calibration(self) -> Calibration:
        """What past decisions taught."""
        return Calibration(tuple(self.lead_times.recent_s), self.capacity.correction)

    @calibration.setter
    def calibration(self, kept: Calibration) -> None:
        self.lead_times.recent_s.clear()
        for seconds in kept.lead_times_s:
            self.lead_times.record(seconds)
        self.capacity.set_correction(kept.capacity_correction)

    @property
    def last_work(self) -> float:
        """Work of the last interval; 0 before the first."""
        return self.samples[-1].work if self.samples else 0.0

    @property
    def ahead(self) -> int:
        """Intervals from the last sample to the first that a decision made now can still serve."""
        return max(1, math.ceil(self.lead_times.horizon_s / self.config.interval_s))

    @property
    def max_samples(self) -> int:
        """Samples kept: those of two weeks, within bounds."""
        return min(max(MIN_SAMPLES, round(KEPT_S / self.config.interval_s)), MAX_SAMPLES)

    def take(self, samples: Iterable[Sample], now_s: float) -> int:
        """Take samples in order of time; gaps count as no work. Returns how many were new.

        Raises:
            ValueError: a sample is negative or not finite.
        """
        taken = 0
        for sample in samples:
            if not (math.isfinite(sample.work) and sample.work >= 0 and sample.backlog >= 0):
                raise ValueError("work and backlog must be finite and not negative")
            if not self._is_new(sample):
                continue
            for filled in self._filled(sample):
                self._add(filled)
            taken += 1
            end_s = sample.start_s + self.config.interval_s
            self.measured_at_s = max(self.measured_at_s, min(now_s, end_s))
        return taken

    def _is_new(self, sample: Sample) -> bool:
        if not self.samples:
            return True
        return sample.start_s >= self.samples[-1].start_s + self.config.interval_s / 2

    def _filled(self, sample: Sample) -> list[Sample]:
        """The sample, after samples without work for the intervals since the last one.

        A very long silence begins a new history instead.
        """
        if not self.samples:
            return [sample]
        interval_s = self.config.interval_s
        last_s = self.samples[-1].start_s
        gap = round((sample.start_s - last_s) / interval_s) - 1
        if gap > MAX_GAP:
            self.samples = []
            self.forecasts.reset()
            return [sample]
        missing = [Sample(last_s + (step + 1) * interval_s, 0.0) for step in range(gap)]
        return [*missing, sample]

    def _add(self, sample: Sample) -> None:
        self.samples.append(sample)
        if len(self.samples) > self.max_samples:
            del self.samples[: len(self.samples) - self.max_samples]
        self.forecasts.observe(sample.work)

    @property
    def rebuild_due(self) -> bool:
        """Whether there are no forecasters for the horizon in force."""
        return bool(self.samples) and not self.forecasts.covers(self.ahead)

    @property
    def fit_due(self) -> bool:
        """Whether forecasters should be built, or their experts fitted again."""
        return self.rebuild_due or bool(self.forecasts.due())

    def rebuild(self) -> Rebuilt:
        """Build forecasters for the horizon in force; changes nothing here. May run in a thread."""
        return self.forecasts.rebuild(list(self.samples), self.ahead)

    def install(self, rebuilt: Rebuilt) -> None:
        """Use rebuilt forecasters."""
        self.forecasts.install(rebuilt, self.samples)

    def decide(self, live: LiveState, now_s: float) -> Decision:
        """Decide how many instances there should be; the next decision builds on this one."""
        evaluation = self.evaluate(live, now_s)
        self.state = evaluation.state
        return evaluation.decision

    def evaluate(self, live: LiveState, now_s: float) -> Evaluation:
        """Return what would be decided now; changes nothing."""
        interval_s = self.config.interval_s
        forecast = self.forecasts.quantile(self.level, default=self.last_work)
        target = decide(self._state(live, forecast, now_s), self.policy, self.state, now_s)
        decision = Decision(
            made_s=now_s,
            pool=self.config.name,
            current=live.current,
            wanted=target.wanted,
            on_demand=target.wanted,
            forecast=forecast,
            level=self.level,
            horizon_s=self.ahead * interval_s,
            floor=target.floor,
            reason=target.reason,
        )
        return Evaluation(decision, target.state, target.is_deferred)

    def _state(self, live: LiveState, forecast: float, now_s: float) -> PoolState:
        seconds = self.config.interval_s
        demand = self.last_work / seconds
        last_backlog = self.samples[-1].backlog if self.samples else 0.0
        capacity = self.capacity.corrected(self.nominal_capacity)
        return PoolState(
            current=live.current,
            ready=live.ready,
            capacity=capacity * self.config.target_utilisation,
            demand=demand,
            backlog=max(live.backlog, last_backlog),
            forecast=forecast / seconds,
            # A backlog is measured now, so demand is known even where no sample is recent.
            measured_at_s=now_s if live.backlog > 0 else self.measured_at_s,
            scheduled_minimum=self._scheduled_minimum(now_s),
            reactive_reason=self.forecasts.reactive_reason,
            last_wanted=live.last_wanted,
            burst=max(live.burst, demand),
        )

    def _scheduled_minimum(self, now_s: float) -> int:
        schedules = self.config.schedules
        return max((schedule.minimum_at(now_s) for schedule in schedules), default=0)
