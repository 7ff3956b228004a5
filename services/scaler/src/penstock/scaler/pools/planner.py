"""One pool as it runs: samples in, forecasts for each horizon, a decision with its reasons out.

No network and no clock here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from penstock.scaler.decide.decision import DecisionState, PoolState, decide
from penstock.scaler.decide.measurements import (
    CAPACITY_BOUNDS,
    Calibration,
    CapacityEstimate,
    LeadTimes,
)
from penstock.scaler.forecast.features import DAY_S
from penstock.scaler.forecast.forecaster import FIRST_FIT, LEVELS, Forecast, Forecaster
from penstock.scaler.samples import Sample
from penstock.scaler.settings import PoolConfig

LOST, TOO_LITTLE = "reactive: the forecast has lost", "reactive: too little history"
MOST_GAP = 1000
"""A longer silence than so many intervals begins a new history."""


@dataclass(frozen=True)
class Decision:
    """One decision and what it rests on; `forecast` is work in one interval."""

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

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Rebuilt:
    """Forecasters that know the history up to the sample that began then."""

    forecasters: list[Forecaster]
    until_s: float


class PoolPlanner:
    """Keeps one pool's history and decides for it.

    `given_capacity` is set by whoever learns it from a cost model.
    """

    def __init__(self, config: PoolConfig) -> None:
        self.config = config
        self.lead_times = LeadTimes(config.seed_lead_s)
        self.capacity = CapacityEstimate()
        self.given_capacity = config.capacity
        self.samples: list[Sample] = []
        self.memory = DecisionState()
        self._forecasters: list[Forecaster] = []
        self.latest: list[Forecast] = []
        self.measured_at = -math.inf

    @property
    def learnt(self) -> Calibration:
        """What past decisions taught."""
        return Calibration(tuple(self.lead_times.seconds), self.capacity.correction)

    @learnt.setter
    def learnt(self, kept: Calibration) -> None:
        self.lead_times.seconds.clear()
        for seconds in kept.lead_times_s:
            self.lead_times.add(seconds)
        self.capacity.correction = min(max(kept.correction, CAPACITY_BOUNDS[0]), CAPACITY_BOUNDS[1])

    @property
    def arrived(self) -> float:
        """Work of the last interval; 0 before the first."""
        return self.samples[-1].work if self.samples else 0.0

    @property
    def ahead(self) -> int:
        """Intervals from the last sample to the first that a decision made now can still serve."""
        return max(1, math.ceil(self.lead_times.horizon_s / self.config.interval_s))

    @property
    def levels(self) -> tuple[float, ...]:
        """Levels computed: the usual ones and the pool's own."""
        return tuple(sorted({*LEVELS, self.config.wanted_level}))

    def take(self, samples: Iterable[Sample], now_s: float) -> int:
        """Take samples in order of time; gaps count as no work. Returns how many were new.

        Raises:
            ValueError: a sample is negative or not finite.
        """
        taken = 0
        for sample in samples:
            if not (math.isfinite(sample.work) and sample.work >= 0 and sample.backlog >= 0):
                raise ValueError("work and backlog must be finite and not negative")
            if (
                self.samples
                and sample.start_s < self.samples[-1].start_s + self.config.interval_s / 2
            ):
                continue
            for filled in self._filled(sample):
                self._add(filled)
            taken += 1
            self.measured_at = max(
                self.measured_at, min(now_s, sample.start_s + self.config.interval_s)
            )
        return taken

    def _filled(self, sample: Sample) -> list[Sample]:
        """The sample with what lies between it and the last one; after a very long silence the
        history begins anew.
        """
        if not self.samples:
            return [sample]
        last = self.samples[-1].start_s
        gap = round((sample.start_s - last) / self.config.interval_s) - 1
        if gap > MOST_GAP:
            self.samples, self._forecasters, self.latest = [], [], []
            return [sample]
        return [
            Sample(last + (step + 1) * self.config.interval_s, 0.0) for step in range(max(0, gap))
        ] + [sample]

    def _add(self, sample: Sample) -> None:
        self.samples.append(sample)
        if len(self.samples) > self.most_samples:
            del self.samples[: len(self.samples) - self.most_samples]
        self.latest = [forecaster.observe(sample.work) for forecaster in self._forecasters]

    @property
    def most_samples(self) -> int:
        """Samples kept: two weeks, at least a thousand and at most 12,000."""
        return min(max(1000, round(14 * DAY_S / self.config.interval_s)), 12_000)

    @property
    def rebuild_due(self) -> bool:
        """Whether there are no forecasters for the horizon in force; they are taught with the
        history (see `rebuild`).
        """
        return bool(self.samples) and (
            not self._forecasters or self._forecasters[0].ahead != self.ahead
        )

    def rebuild(self) -> Rebuilt:
        """Forecasters for the horizon in force, taught with the history kept now.

        Seconds of work for a long one; changes nothing here.
        """
        kept, interval_s = list(self.samples), self.config.interval_s
        aheads = range(self.ahead, self.ahead + self.config.hold_steps)
        clock = (kept[0].start_s, interval_s)
        made = [Forecaster(ahead, clock, self.levels, self.config.wanted_level) for ahead in aheads]
        # The learned experts begin after two thirds, so that they have residuals of their own when
        # the history ends.
        begin = max(FIRST_FIT, 2 * len(kept) // 3)
        for number, sample in enumerate(kept):
            for forecaster in made:
                forecaster.observe(sample.work)
                if number == begin:
                    forecaster.adopt(forecaster.train())
        return Rebuilt(made, kept[-1].start_s)

    def install(self, rebuilt: Rebuilt) -> None:
        """Use rebuilt forecasters; samples that came meanwhile are caught up."""
        self._forecasters = rebuilt.forecasters
        for sample in self.samples:
            if sample.start_s > rebuilt.until_s:
                self.latest = [forecaster.observe(sample.work) for forecaster in self._forecasters]
        if not self.latest or len(self.latest) != len(self._forecasters):
            self.latest = [forecaster.last for forecaster in self._forecasters]

    def due(self) -> list[Forecaster]:
        """Forecasters whose learned experts should be fitted; `Forecaster.train` may run in a
        thread, `adopt` may not.
        """
        return [forecaster for forecaster in self._forecasters if forecaster.fit_due]

    @property
    def fallen_back(self) -> bool:
        """Whether the reactive rules decide."""
        return any(forecast.fallen_back for forecast in self.latest)

    @property
    def reactive(self) -> str:
        """Why the reactive rules decide; empty where the forecast does."""
        if not self.fallen_back:
            return "" if self.latest else TOO_LITTLE
        return LOST if all(forecast.ready for forecast in self.latest) else TOO_LITTLE

    def coverage(self) -> float:
        """Share of samples at or below the quantile that the pool provides for; the level itself
        before any.
        """
        level = self.config.wanted_level
        if not self._forecasters:
            return level
        return self._forecasters[0].covered.share(self.levels.index(level))

    def quantile(self, level: float) -> float:
        """The most of the quantile over horizon and hold, in work of one interval; the latest
        sample before there is a forecast.
        """
        last = self.samples[-1].work if self.samples else 0.0
        return max((forecast.at(self.levels, level) for forecast in self.latest), default=last)

    def decide(
        self,
        current: int,
        ready: int,
        now_s: float,
        last_answer: int = 0,
        urgent: tuple[float, float] = (0.0, 0.0),
    ) -> Decision:
        """Decide how many instances there should be; remembers for the next decision.

        Args:
            last_answer: stands until demand is reported.
            urgent: what no sample tells yet: work a second of the last few seconds, and work that
                waits now.
        """
        rules, level = self.config.rules(), self.config.wanted_level
        last = self.samples[-1] if self.samples else Sample(0.0, 0.0)
        seconds = self.config.interval_s
        forecast = self.quantile(level)
        view = PoolState(
            current=current,
            ready=ready,
            capacity=self.capacity.of(self.given_capacity) * self.config.utilisation,
            demand=last.work / seconds,
            burst=max(urgent[0], last.work / seconds),
            backlog=max(urgent[1], last.backlog),
            forecast=forecast / seconds,
            measured_at=now_s if urgent[1] > 0 else self.measured_at,  # what waits is seen now
            scheduled=self.config.scheduled(now_s),
            reactive=self.reactive,
            last_answer=last_answer,
        )
        verdict = decide(view, rules, self.memory, now_s)
        self.memory = verdict.memory
        return Decision(
            now_s,
            self.config.name,
            current,
            verdict.wanted,
            verdict.wanted,
            forecast,
            level,
            self.ahead * seconds,
            verdict.floor,
            verdict.reason,
        )
