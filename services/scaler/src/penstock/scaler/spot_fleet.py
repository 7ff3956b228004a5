"""A fleet on spot: whoever has machines behind one interface, the online rule at every look, the solver now and then beside it."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from penstock.core.clock import Clock
from penstock.scaler.actuators import Fleet, await_replacement
from penstock.scaler.placement import Plan, PlanKnobs, scenarios, solve
from penstock.scaler.spot_policy import Held, Placement, SpotKnobs, place
from penstock.scaler.zones import Zone, Zones

log = logging.getLogger(__name__)
SOLVE_S = 60.0
SCENARIOS = 100


@dataclass(frozen=True)
class Machine:
    """One machine: its zone, empty for on demand, and whether it serves."""

    id: str
    zone: str
    serves: bool


class SpotProvider(Protocol):
    """Who has machines: a cloud, or a simulated market. Each call may raise OSError where it cannot be asked."""

    async def machines(self) -> list[Machine]:
        """Those that were launched and have not gone."""
        ...

    async def prices(self) -> Mapping[str, float]:
        """Price by zone, as shares of the on-demand price."""
        ...

    async def launch(self, zone: str) -> bool:
        """Start one in a zone, or on demand where it is empty; False where there is no room."""
        ...

    async def end(self, machine: str) -> None:
        """Give one back."""
        ...


class SpotFleet:
    """An actuator that splits the wanted number over spot zones and on demand. Owner: the engine.

    Args:
        regions: region by zone.
        drain: asked before a machine is given back.
        solver: knobs of the solver; None leaves the online rule alone.
    """

    def __init__(
        self,
        provider: SpotProvider,
        regions: Mapping[str, str],
        clock: Clock,
        knobs: SpotKnobs | None = None,
        solver: PlanKnobs | None = None,
        drain: Callable[[str, str], Awaitable[None]] | None = None,
    ) -> None:
        self._provider, self._clock, self._drain = provider, clock, drain
        self._knobs, self._solver = knobs or SpotKnobs(), solver
        self.zones = Zones([Zone(name, region) for name, region in regions.items()])
        self._known: dict[str, Machine] = {}
        self._leaving: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._short_since: float | None = None
        self._plan: Plan | None = None
        self._solved_at = -math.inf
        self._rng = np.random.default_rng(1)
        self.wanted = 0
        self.placement = Placement({}, {}, 0, "nothing asked yet")

    async def fleet(self) -> Fleet:
        machines = await self._look()
        if self.wanted:
            await self._place(machines)
        return Fleet(self.wanted, min(self.wanted, sum(one.serves for one in self._known.values())))

    def on_demand(self, wanted: int) -> int:
        return min(wanted, max(self.placement.on_demand, self._knobs.base))

    async def scale(self, wanted: int) -> None:
        self.wanted = wanted
        await self._place(await self._look())

    async def replace(self, instance: str, left_s: float) -> bool:
        """Count it as gone, so that the rule puts another elsewhere now; its zone is left alone for a while. Then drain it."""
        machine = self._known.get(instance)
        if machine is None or instance in self._leaving:
            return False
        self._leaving.add(instance)
        if machine.zone in self.zones.by_name:
            self.zones.lost(machine.zone, self._clock.monotonic())
        await self._place(await self._look())
        self._spawn(self._hand_over(machine, left_s))
        return True

    async def close(self) -> None:
        """Stop draining; machines that have not gone by then are found again by the next scaler."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _hand_over(self, machine: Machine, left_s: float) -> None:
        """Drain once others serve in its place; end it when its time is over and nobody has taken it."""
        gone_s = self._clock.monotonic() + left_s
        await await_replacement(self._full, self._clock, left_s)
        await self._retire(machine, "spot_notice", gone_s)

    async def _full(self) -> bool:
        """Whether enough serve beside those that leave, as last seen."""
        return sum(one.serves and one.id not in self._leaving for one in self._known.values()) >= self.wanted

    async def _retire(self, machine: Machine, reason: str, not_before_s: float = -math.inf) -> None:
        if self._drain is not None:
            await self._drain(machine.id, reason)
        while (rest_s := not_before_s - self._clock.monotonic()) > 0:
            await self._clock.sleep(rest_s)
        try:
            if machine.id in self._known:
                await self._provider.end(machine.id)
        except OSError as error:
            log.warning("%s cannot be given back now: %s", machine.id, error)
            self._leaving.discard(machine.id)

    async def _look(self) -> list[Machine]:
        """What there is; zones learn from what is gone without having been given back."""
        machines, now = await self._provider.machines(), self._clock.monotonic()
        there = {one.id for one in machines}
        for gone in [one for one in self._known.values() if one.id not in there]:
            if gone.zone in self.zones.by_name and gone.id not in self._leaving:
                self.zones.lost(gone.zone, now)
            self._leaving.discard(gone.id)
        for new in [one for one in machines if one.id not in self._known and one.zone in self.zones.by_name]:
            self.zones.launched(new.zone, now)  # also those that ran before this scaler began
        self._known = {one.id: one for one in machines}
        for zone, price in (await self._provider.prices()).items():
            if zone in self.zones.by_name:
                self.zones.priced(zone, price)
        self.zones.note()
        return [one for one in machines if one.id not in self._leaving]

    async def _place(self, machines: list[Machine]) -> None:
        now = self._clock.monotonic()
        held = _held([one for one in machines if one.zone in self.zones.by_name])
        short = sum(one.ready for one in held.values()) < self.wanted
        self._short_since = (now if self._short_since is None else self._short_since) if short else None
        if self._solver is not None and now - self._solved_at >= SOLVE_S:
            self._solved_at = now
            self._plan = await asyncio.to_thread(self._solve, self._solver, held, now)
        lasted = 0.0 if self._short_since is None else now - self._short_since
        self.placement = place(self.wanted, held, self.zones, self._knobs, now, self._plan, lasted)
        await self._carry_out(self.placement, machines, now)

    def _solve(self, knobs: PlanKnobs, held: Mapping[str, Held], now: float) -> Plan | None:
        names = list(self.zones.by_name)
        survive = np.array([self.zones.survives(name, self._knobs.horizon_s, now) for name in names])
        is_open = tuple(self.zones.by_name[name].retry_at_s <= now for name in names)
        rows = scenarios(list(self.zones.history), is_open, survive, SCENARIOS, self._rng)
        prices = {name: self.zones.by_name[name].price for name in names}
        return solve(self.wanted, prices, {name: one.alive for name, one in held.items()}, rows, knobs)

    async def _carry_out(self, placement: Placement, machines: list[Machine], now: float) -> None:
        for zone, count in placement.launch.items():
            for _ in range(count):
                if not await self._provider.launch(zone):
                    self.zones.refused(zone, now)
                    break
                self.zones.launched(zone, now)
        paid = [one for one in machines if not one.zone]
        for _ in range(placement.on_demand - len(paid)):
            await self._provider.launch("")
        surplus = paid[placement.on_demand :] if len(paid) > placement.on_demand else []
        for zone, count in placement.stop.items():
            # The youngest go: one that has lasted is the better bet.
            surplus += [one for one in machines if one.zone == zone][-count:]
        if sum(one.serves for one in machines) >= self.wanted:
            # Machines in zones that are configured no more go once others serve.
            surplus += [one for one in machines if one.zone and one.zone not in self.zones.by_name]
        for machine in surplus:
            self._give_back(machine, now)

    def _give_back(self, machine: Machine, now: float) -> None:
        """Drain and end it, beside whatever else is decided meanwhile."""
        self._leaving.add(machine.id)
        self._spawn(self._retire(machine, "scale_down"))
        others = Counter(one.zone for one in self._known.values() if one.id not in self._leaving)
        if machine.zone in self.zones.by_name and not others[machine.zone]:
            self.zones.left(machine.zone, now)


def _held(machines: list[Machine]) -> dict[str, Held]:
    ready = Counter(one.zone for one in machines if one.zone and one.serves)
    starting = Counter(one.zone for one in machines if one.zone and not one.serves)
    return {zone: Held(ready[zone], starting[zone]) for zone in {*ready, *starting}}
