"""How likely spot machines are taken away, by their age."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

AGE_EDGES_S = (600.0, 1_800.0, 3_600.0, 7_200.0, 14_400.0, 28_800.0, 86_400.0)
"""Between these ages the hazard is constant. A machine that has lasted is likelier to last."""
AGES = len(AGE_EDGES_S) + 1
PRIOR_DEATHS = 4.0
"""The prior weighs as much as the time in which it expects so many deaths."""
DEFAULT_RATE = 1.0 / 86_400.0
"""Deaths a second before anything was seen: one in a day."""


@dataclass
class Hazard:
    """A piecewise constant hazard rate: deaths over time lived, by age.

    Field names are keys in the store.

    Args:
        deaths: machines taken away, by age.
        lived_s: seconds that machines lived, by age.
    """

    deaths: list[float] = field(default_factory=lambda: [0.0] * AGES)
    lived_s: list[float] = field(default_factory=lambda: [0.0] * AGES)

    def record(self, age_s: float, died: bool) -> None:
        """Add one life that reached this age.

        Args:
            died: False where the machine was given back by its owner.
        """
        begin_s = 0.0
        for index, end_s in enumerate((*AGE_EDGES_S, math.inf)):
            self.lived_s[index] += max(0.0, min(age_s, end_s) - begin_s)
            if died and begin_s <= age_s < end_s:
                self.deaths[index] += 1.0
            begin_s = end_s

    def rate(self, age_s: float, prior: Hazard | None) -> float:
        """Return deaths a second at this age.

        Args:
            prior: stands in while few lives are known; None means one death in a day.
        """
        index = sum(age_s >= edge for edge in AGE_EDGES_S)
        prior_rate = DEFAULT_RATE if prior is None else prior.rate(age_s, None)
        deaths = self.deaths[index] + PRIOR_DEATHS
        return deaths / (self.lived_s[index] + PRIOR_DEATHS / prior_rate)
