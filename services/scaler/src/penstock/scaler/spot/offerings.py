"""What is learnt of spot zones: lives by age, failures, prices.

Only from own launches and losses; time is an argument (Unix seconds).
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from penstock.scaler.spot.price_forecast import PriceForecast

USUAL_PRICE = 0.3
HIGH = 0.9
"""The quantile of a price that is planned with where it must not be exceeded."""
SHORT_LIFE_S = 600.0
PRIOR_LIVES = 4.0
"""A zone's own lives count against so many pooled ones."""
AGE_EDGES_S = (600.0, 1_800.0, 3_600.0, 7_200.0, 14_400.0, 28_800.0, 86_400.0)
"""Hazards are kept for ages between these; a life that has lasted is a better bet than a new one.
"""


@dataclass
class Hazard:
    """Deaths and seconds lived by age: the piecewise form of the Kaplan-Meier estimate."""

    deaths: list[float] = field(default_factory=lambda: [0.0] * (len(AGE_EDGES_S) + 1))
    lived_s: list[float] = field(default_factory=lambda: [0.0] * (len(AGE_EDGES_S) + 1))

    def add(self, age_s: float, died: bool) -> None:
        """One life that reached this age; one that was ended by us did not die."""
        begin = 0.0
        for place, edge in enumerate((*AGE_EDGES_S, math.inf)):
            self.lived_s[place] += max(0.0, min(age_s, edge) - begin)
            if died and begin <= age_s < edge:
                self.deaths[place] += 1.0
            begin = edge

    def rate(self, age_s: float, prior: Hazard | None) -> float:
        """Deaths a second at this age; a prior stands in where little was seen, and one death in a
        day before anything was.
        """
        place = sum(age_s >= edge for edge in AGE_EDGES_S)
        usual = prior.rate(age_s, None) if prior is not None else 1.0 / 86_400.0
        # The prior weighs as much as PRIOR_LIVES deaths' worth of time.
        return (self.deaths[place] + PRIOR_LIVES) / (self.lived_s[place] + PRIOR_LIVES / usual)


@dataclass
class Offering:
    """One place to run spot instances: a zone of one instance type.

    `zone`: where it lies, the name itself where a zone has one type; `region`: what falls together
    beyond that; `type`: of its machines, empty where all are of one. `capacity`: how many of the
    wanted instances one machine does. `price`, expected in an hour, and `price_high` are for one
    wanted instance, as shares of the on-demand price.
    """

    name: str
    region: str
    zone: str = ""
    type: str = ""
    capacity: float = 1.0
    price: float = USUAL_PRICE
    price_high: float = USUAL_PRICE
    prices: PriceForecast = field(default_factory=lambda: PriceForecast(USUAL_PRICE))
    hazard: Hazard = field(default_factory=Hazard)
    up_since_s: float | None = None
    retry_at_s: float = -math.inf
    failures: int = 0

    def __post_init__(self) -> None:
        self.zone = self.zone or self.name


class Offerings:
    """All zones of a pool.

    Back-off doubles with each failure or short life in a row, from `first_s` to `most_s`.
    """

    def __init__(
        self, zones: list[Offering], first_s: float = 195.0, most_s: float = 3_120.0
    ) -> None:
        self.by_name = {zone.name: zone for zone in zones}
        self.pooled = Hazard()
        self._first_s, self._most_s = first_s, most_s
        self.history: deque[tuple[bool, ...]] = deque(maxlen=2_000)
        self.events = 0
        """Counts what is worth keeping at once: losses, refusals, first launches."""

    def launched(self, name: str, now_s: float) -> None:
        """A launch came up: the zone has room."""
        zone = self.by_name[name]
        if zone.up_since_s is None:
            zone.up_since_s = now_s
            self.events += 1

    def refused(self, name: str, now_s: float) -> None:
        """A launch found no room."""
        zone = self.by_name[name]
        zone.up_since_s = None
        self._back_off(zone, now_s)

    def lost(self, name: str, now_s: float) -> None:
        """Instances there were taken away."""
        zone = self.by_name[name]
        if zone.up_since_s is None:
            return
        age_s = now_s - zone.up_since_s
        zone.hazard.add(age_s, died=True)
        self.pooled.add(age_s, died=True)
        if age_s >= SHORT_LIFE_S:
            zone.failures = 0
        zone.up_since_s = None
        self._back_off(zone, now_s)

    def left(self, name: str, now_s: float) -> None:
        """The last instance there was given back by us."""
        zone = self.by_name[name]
        if zone.up_since_s is not None:
            zone.hazard.add(now_s - zone.up_since_s, died=False)
            self.pooled.add(now_s - zone.up_since_s, died=False)
            zone.up_since_s = None
            zone.failures = 0
            self.events += 1

    def priced(self, name: str, price: float, now_s: float) -> None:
        """A price was seen: of one wanted instance, as a share of the on-demand price."""
        self.by_name[name].prices.saw(price, now_s)
        self.reprice(name, now_s)

    def reprice(self, name: str, now_s: float) -> None:
        """Bring the place's prices up to what is forecast now."""
        zone = self.by_name[name]
        zone.price, zone.price_high = zone.prices.expected(now_s), zone.prices.quantile(HIGH, now_s)

    def survives(self, name: str, horizon_s: float, now_s: float) -> float:
        """Chance that an instance there now lives through the horizon."""
        zone = self.by_name[name]
        age_s = 0.0 if zone.up_since_s is None else now_s - zone.up_since_s
        return math.exp(-zone.hazard.rate(age_s, self.pooled) * horizon_s)

    def still_there(self, names: set[str]) -> None:
        """After a restart: a place where nothing runs any more was left meanwhile, nobody knows
        when or why.
        """
        for zone in self.by_name.values():
            if zone.name not in names:
                zone.up_since_s = None

    def note(self) -> None:
        """Remember which zones are up now, for the scenarios of the solver."""
        self.history.append(tuple(zone.up_since_s is not None for zone in self.by_name.values()))

    def _back_off(self, zone: Offering, now_s: float) -> None:
        self.events += 1
        zone.retry_at_s = now_s + min(self._most_s, self._first_s * 2.0**zone.failures)
        zone.failures = min(zone.failures + 1, 10)
