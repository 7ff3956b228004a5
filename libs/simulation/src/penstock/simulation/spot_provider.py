"""A market as a provider of machines, in virtual time: what a cloud is to a spot fleet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from penstock.scaler.spot.provider import Machine
from penstock.service.clock import Clock
from penstock.simulation.spot_market import TICK_S, Market


@dataclass(frozen=True)
class _Launched:
    """A machine, and when it begins to serve (Unix seconds)."""

    id: str
    zone: str
    ready_s: float


class MarketProvider:
    """Machines on a market; see `SpotProvider`.

    The market begins when this is made, and its last tick lasts for ever. When a zone loses
    capacity, its youngest machines are taken away without notice.

    Attributes:
        cost: what machines have cost so far, in on-demand machines times seconds.

    Args:
        start_s: seconds from launch to serving.
    """

    def __init__(self, market: Market, clock: Clock, start_s: float = TICK_S) -> None:
        self.cost = 0.0
        self._market = market
        self._clock = clock
        self._start_s = start_s
        self._began_s = clock.time()
        self._charged_s = self._began_s
        self._machines: list[_Launched] = []
        self._launched = 0

    async def machines(self) -> list[Machine]:
        self._advance()
        now_s = self._clock.time()
        return [Machine(one.id, one.zone, one.ready_s <= now_s) for one in self._machines]

    async def prices(self) -> Mapping[str, float]:
        return self._prices()

    async def launch(self, offering: str) -> bool:
        self._advance()
        running = sum(one.zone == offering for one in self._machines)
        if offering and running >= self._capacity(offering):
            return False
        self._launched += 1
        ready_s = self._clock.time() + self._start_s
        self._machines.append(_Launched(f"vm-{self._launched}", offering, ready_s))
        return True

    async def terminate(self, machine: str) -> None:
        self._advance()
        self._machines = [one for one in self._machines if one.id != machine]

    @property
    def _tick(self) -> int:
        ticks = int((self._clock.time() - self._began_s) / TICK_S)
        return min(ticks, len(self._market.capacity) - 1)

    def _prices(self) -> dict[str, float]:
        row = self._market.prices[self._tick]
        return dict(zip(self._market.zones, map(float, row), strict=True))

    def _capacity(self, zone: str) -> int:
        return int(self._market.capacity[self._tick][list(self._market.zones).index(zone)])

    def _advance(self) -> None:
        """Charge what has run, and take away what there is no capacity for any more."""
        now_s, prices = self._clock.time(), self._prices()
        price = sum(prices.get(one.zone, 1.0) for one in self._machines)
        self.cost += (now_s - self._charged_s) * price
        self._charged_s = now_s
        for zone in self._market.zones:
            inside = [one for one in self._machines if one.zone == zone]
            gone = {one.id for one in inside[self._capacity(zone) :]}
            self._machines = [one for one in self._machines if one.id not in gone]
