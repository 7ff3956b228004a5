"""What is learned about spot offerings: availability, lives of machines, failures, prices.

Learned only from a fleet's own launches and losses and from published prices. The time is an
argument, in Unix seconds.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from penstock.scaler.spot.hazard import Hazard
from penstock.scaler.spot.price_forecast import PriceForecast

DEFAULT_PRICE = 0.3
HIGH_PRICE_LEVEL = 0.9
"""Quantile of the price that must stay below the highest acceptable one."""
SHORT_LIFE_S = 600.0
FIRST_BACK_OFF_S = 195.0
MAX_BACK_OFF_S = 3_120.0
MAX_FAILURES = 10
MAX_MOMENTS = 2_000


@dataclass
class Offering:
    """One instance type in one availability zone, with what is learned about it.

    Prices are those of one wanted instance, as shares of the on-demand price.

    Args:
        name: unique in the fleet.
        failure_domain: what fails together beyond the zone, such as a region.
        zone: the availability zone; the name itself where the fleet uses one type.
        instance_type: empty where the fleet uses one type.
        capacity: wanted instances that one machine replaces.
        price: expected in an hour.
        high_price: the 0.9 quantile of the price in an hour.
        up_since_s: since when machines have run there without a loss; None where none runs.
        retry_at_s: when the next launch may be tried.
        failures: refusals and short lives in a row.
    """

    name: str
    failure_domain: str
    zone: str = ""
    instance_type: str = ""
    capacity: float = 1.0
    price: float = DEFAULT_PRICE
    high_price: float = DEFAULT_PRICE
    price_forecast: PriceForecast = field(default_factory=lambda: PriceForecast(DEFAULT_PRICE))
    hazard: Hazard = field(default_factory=Hazard)
    up_since_s: float | None = None
    retry_at_s: float = -math.inf
    failures: int = 0

    def __post_init__(self) -> None:
        self.zone = self.zone or self.name


class Offerings:
    """All offerings of a fleet.

    The wait before the next launch doubles with each refusal or short life in a row.

    Attributes:
        by_name: the offerings.
        pooled_hazard: lives of machines of all offerings.
        availability: which offerings had machines, at each recorded moment.
        changes: counts launches, losses and refusals, so that they can be stored at once.
    """

    def __init__(self, offerings: Iterable[Offering]) -> None:
        self.by_name = {offering.name: offering for offering in offerings}
        self.pooled_hazard = Hazard()
        self.availability: deque[tuple[bool, ...]] = deque(maxlen=MAX_MOMENTS)
        self.changes = 0

    def record_launch(self, name: str, now_s: float) -> None:
        """A machine was launched, so the offering has capacity."""
        offering = self.by_name[name]
        if offering.up_since_s is None:
            offering.up_since_s = now_s
            self.changes += 1

    def record_refusal(self, name: str, now_s: float) -> None:
        """A launch found no capacity."""
        offering = self.by_name[name]
        offering.up_since_s = None
        self._back_off(offering, now_s)

    def record_loss(self, name: str, now_s: float) -> None:
        """Machines were taken away."""
        offering = self.by_name[name]
        if offering.up_since_s is None:
            return
        age_s = now_s - offering.up_since_s
        self._record_life(offering, age_s, died=True)
        if age_s >= SHORT_LIFE_S:
            offering.failures = 0
        offering.up_since_s = None
        self._back_off(offering, now_s)

    def record_release(self, name: str, now_s: float) -> None:
        """The last machine was given back."""
        offering = self.by_name[name]
        if offering.up_since_s is None:
            return
        self._record_life(offering, now_s - offering.up_since_s, died=False)
        offering.up_since_s = None
        offering.failures = 0
        self.changes += 1

    def record_price(self, name: str, price: float, now_s: float) -> None:
        """A price was published: of one wanted instance, as a share of the on-demand price."""
        self.by_name[name].price_forecast.observe(price, now_s)
        self.update_price(name, now_s)

    def update_price(self, name: str, now_s: float) -> None:
        """Set an offering's prices to what is forecast now."""
        offering = self.by_name[name]
        offering.price = offering.price_forecast.expected(now_s)
        offering.high_price = offering.price_forecast.quantile(HIGH_PRICE_LEVEL, now_s)

    def record_availability(self) -> None:
        """Remember which offerings have machines now, for the solver's scenarios."""
        self.availability.append(
            tuple(offering.up_since_s is not None for offering in self.by_name.values())
        )

    def survival_probability(self, name: str, horizon_s: float, now_s: float) -> float:
        """Return the probability that a machine there now lives through the horizon."""
        offering = self.by_name[name]
        age_s = 0.0 if offering.up_since_s is None else now_s - offering.up_since_s
        return math.exp(-offering.hazard.rate(age_s, self.pooled_hazard) * horizon_s)

    def keep_up(self, names: set[str]) -> None:
        """Forget the lives of machines of all offerings but these.

        After a restart nobody knows when or why the others were left.
        """
        for offering in self.by_name.values():
            if offering.name not in names:
                offering.up_since_s = None

    def _record_life(self, offering: Offering, age_s: float, *, died: bool) -> None:
        offering.hazard.record(age_s, died)
        self.pooled_hazard.record(age_s, died)

    def _back_off(self, offering: Offering, now_s: float) -> None:
        self.changes += 1
        wait_s = min(MAX_BACK_OFF_S, FIRST_BACK_OFF_S * 2.0**offering.failures)
        offering.retry_at_s = now_s + wait_s
        offering.failures = min(offering.failures + 1, MAX_FAILURES)
