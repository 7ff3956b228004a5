"""A market (generated, or read from traces) as a provider of machines: what a cloud is to a spot
fleet, in virtual time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from penstock.scaler.spot.fleet import Machine
from penstock.service.clock import Clock
from penstock.simulation.spot_market import TICK_S, Market


@dataclass(frozen=True)
class _Launched:
    id: str
    zone: str
    ready_s: float


class MarketProvider:
    """See SpotProvider.

    The clock's time since this began says where in the market it is; after its end the last moment
    stays.

    Room that goes takes the youngest machines there, without notice.

    Args:
        start_s: seconds from launch to serving.
    """

    def __init__(self, market: Market, clock: Clock, start_s: float = TICK_S) -> None:
        self._market, self._clock, self._start_s = market, clock, start_s
        self._began_s = clock.time()
        self._there: list[_Launched] = []
        self._numbers = 0
        self.paid = 0.0
        """On-demand instances times seconds, as prices made it so far."""
        self._paid_s = self._began_s

    @property
    def _tick(self) -> int:
        return min(int((self._clock.time() - self._began_s) / TICK_S), len(self._market.room) - 1)

    async def machines(self) -> list[Machine]:
        self._settle()
        now = self._clock.time()
        return [Machine(one.id, one.zone, one.ready_s <= now) for one in self._there]

    async def prices(self) -> Mapping[str, float]:
        row = self._market.prices[self._tick]
        return {name: float(price) for name, price in zip(self._market.zones, row, strict=True)}

    async def launch(self, zone: str) -> bool:
        self._settle()
        if zone and sum(one.zone == zone for one in self._there) >= self._room(zone):
            return False
        self._numbers += 1
        self._there.append(
            _Launched(f"vm-{self._numbers}", zone, self._clock.time() + self._start_s)
        )
        return True

    async def end(self, machine: str) -> None:
        self._settle()
        self._there = [one for one in self._there if one.id != machine]

    def _room(self, zone: str) -> int:
        return int(self._market.room[self._tick][list(self._market.zones).index(zone)])

    def _settle(self) -> None:
        """Take away what has no room any more, and charge what was there."""
        now, row = self._clock.time(), self._market.prices[self._tick]
        prices = dict(zip(self._market.zones, map(float, row), strict=True))
        self.paid += (now - self._paid_s) * sum(prices.get(one.zone, 1.0) for one in self._there)
        self._paid_s = now
        for zone in self._market.zones:
            inside = [one for one in self._there if one.zone == zone]
            gone = {one.id for one in inside[self._room(zone) :]}
            self._there = [one for one in self._there if one.id not in gone]
