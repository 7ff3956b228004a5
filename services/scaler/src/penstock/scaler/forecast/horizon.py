"""The forecasts of one pool for every interval that a decision made now must cover.

An instance started now serves after the lead time and is then kept for some intervals (the hold),
so demand is forecast for each of them. When the lead time changes, the forecasters for the new
horizon are built from the history, which takes seconds and is done outside the event loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstock.scaler.forecast.features import Sample
from penstock.scaler.forecast.forecaster import FIRST_FIT, LEVELS, Forecast, Forecaster

FORECAST_LOST = "reactive: the forecast has lost"
TOO_LITTLE_HISTORY = "reactive: too little history"


@dataclass(frozen=True)
class Rebuilt:
    """Forecasters that know the history up to the sample that began at `until_s`."""

    forecasters: list[Forecaster]
    until_s: float


class HorizonForecasts:
    """Forecasters for each interval of the hold, and their latest forecasts.

    Args:
        level: quantile level that the pool provides for.
        hold_steps: intervals of the hold.
        interval_s: seconds of a sample.
    """

    def __init__(self, level: float, hold_steps: int, interval_s: float) -> None:
        self.level = level
        self.levels = tuple(sorted({*LEVELS, level}))
        self.latest: list[Forecast] = []
        self._hold_steps = hold_steps
        self._interval_s = interval_s
        self._forecasters: list[Forecaster] = []

    def reset(self) -> None:
        """Forget everything."""
        self.latest = []
        self._forecasters = []

    def observe(self, work: float) -> None:
        """Take the next sample."""
        self.latest = [forecaster.observe(work) for forecaster in self._forecasters]

    def covers(self, ahead: int) -> bool:
        """Return whether there are forecasters for a horizon that begins so many samples ahead."""
        return bool(self._forecasters) and self._forecasters[0].ahead == ahead

    def due(self) -> list[Forecaster]:
        """Return the forecasters whose fitted experts should be fitted again."""
        return [forecaster for forecaster in self._forecasters if forecaster.fit_due]

    def rebuild(self, history: Sequence[Sample], ahead: int) -> Rebuilt:
        """Build forecasters for a horizon from the history; changes nothing here.

        Takes seconds for a long history; may run in a thread.
        """
        start_s, last_s = history[0].start_s, history[-1].start_s
        forecasters = [
            Forecaster(step, start_s, self._interval_s, self.levels, self.level)
            for step in range(ahead, ahead + self._hold_steps)
        ]
        # Experts are fitted after two thirds of the history, so that they have residuals of their
        # own when it ends.
        fit_at = max(FIRST_FIT, 2 * len(history) // 3)
        for index, sample in enumerate(history):
            for forecaster in forecasters:
                forecaster.observe(sample.work)
                if index == fit_at:
                    forecaster.adopt(forecaster.train())
        return Rebuilt(forecasters, last_s)

    def install(self, rebuilt: Rebuilt, history: Sequence[Sample]) -> None:
        """Use rebuilt forecasters, after they have observed the samples that came meanwhile."""
        self._forecasters = rebuilt.forecasters
        for sample in history:
            if sample.start_s > rebuilt.until_s:
                self.observe(sample.work)
        self.latest = [forecaster.last for forecaster in self._forecasters]

    def quantile(self, level: float, default: float) -> float:
        """Return the largest quantile over the horizon, in work of one interval.

        Args:
            default: returned before there is a forecast.
        """
        return max((forecast.at(self.levels, level) for forecast in self.latest), default=default)

    @property
    def fallen_back(self) -> bool:
        """Whether the reactive rules decide."""
        return any(forecast.fallen_back for forecast in self.latest)

    @property
    def reactive_reason(self) -> str:
        """Why the reactive rules decide; empty where the forecast does."""
        if not self.latest:
            return TOO_LITTLE_HISTORY
        if not self.fallen_back:
            return ""
        ready = all(forecast.ready for forecast in self.latest)
        return FORECAST_LOST if ready else TOO_LITTLE_HISTORY

    @property
    def coverage(self) -> float:
        """Share of samples at or below the quantile provided for; the level itself before any."""
        if not self._forecasters:
            return self.level
        return self._forecasters[0].coverage.share(self.levels.index(self.level))
