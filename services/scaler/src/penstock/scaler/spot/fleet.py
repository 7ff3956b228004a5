"""A fleet on spot: whoever has machines behind one interface, the online rule at every look, the
solver now and then beside it.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from penstock.scaler.actuate.actuator import FleetStatus, await_replacement
from penstock.scaler.spot.offerings import Offering, Offerings
from penstock.scaler.spot.offerings_json import dump, load
from penstock.scaler.spot.placement_rule import MachineCount, PlacementDecision, SpotPolicy, place
from penstock.scaler.spot.solver import Plan, SolverOffering, SolverSettings, scenarios, solve
from penstock.service.clock import Clock

log = logging.getLogger(__name__)
SOLVE_S = 60.0
SCENARIOS = 100
KEEP_S = 60.0
AWAY_S = 60.0
"""A fleet that has not looked for so long may not have been the one that acted: it sees whether
another has kept more.
"""


@dataclass(frozen=True)
class Machine:
    """One machine: its place (zone, or zone and type; empty for on demand), and whether it
    serves.
    """

    id: str
    zone: str
    serves: bool


class SpotProvider(Protocol):
    """Who has machines: a cloud, or a simulated market.

    Each call may raise OSError where it cannot be asked.
    """

    async def machines(self) -> list[Machine]:
        """Those that were launched and have not gone."""
        ...

    async def prices(self) -> Mapping[str, float]:
        """Price of one wanted instance by place, as shares of the on-demand price."""
        ...

    async def launch(self, zone: str) -> bool:
        """Start one machine in a place, or on demand where that is empty; False where there is no
        room.
        """
        ...

    async def end(self, machine: str) -> None:
        """Give one back."""
        ...


class OfferingsStore(Protocol):
    """Where what is learnt of zones outlives this process.

    Neither call raises: what is lost is said where it is lost.
    """

    async def recall(self) -> str | None:
        """What was kept last; None where nothing is or it cannot be asked."""
        ...

    async def keep(self, text: str) -> None:
        """Keep it in place of what was kept."""
        ...


class SpotFleet:
    """An actuator that splits the wanted number over spot places and on demand. Owner: the engine.

    Args:
        places: zones, or zones x types, with what a machine there does.
        drain: asked before a machine is given back.
        solver: knobs of the solver; None leaves the online rule alone.
        memory: keeps lives, back-off and prices over restarts; None forgets them.
    """

    def __init__(
        self,
        provider: SpotProvider,
        places: Sequence[Offering],
        clock: Clock,
        knobs: SpotPolicy | None = None,
        solver: SolverSettings | None = None,
        drain: Callable[[str, str], Awaitable[None]] | None = None,
        memory: OfferingsStore | None = None,
    ) -> None:
        self._provider, self._clock, self._drain = provider, clock, drain
        self._knobs, self._solver = knobs or SpotPolicy(), solver
        self.zones = Offerings(list(places))
        self._memory = memory
        self._looked_at = self._kept_at = -math.inf
        self._kept_events = 0
        self._kept: str | None = None
        self._told = False
        self._known: dict[str, Machine] = {}
        self._leaving: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._short_since: float | None = None
        self._plan: Plan | None = None
        self._solved_at = -math.inf
        self._rng = np.random.default_rng(1)
        self.wanted = 0
        self.placement = PlacementDecision({}, {}, 0, "nothing asked yet")

    async def fleet(self) -> FleetStatus:
        machines = await self._look()
        if self.wanted:
            await self._place(machines)
        # Before anything was asked of it here, what another scaler started is what is wanted: a new
        # leader must not begin from nothing.
        wanted = (
            self.wanted
            if self._told
            else max(0, math.floor(self._does(machines)) - self._knobs.extra)
        )
        serving = self._does(one for one in self._known.values() if one.serves)
        return FleetStatus(wanted, min(wanted, math.floor(serving)))

    def on_demand(self, wanted: int) -> int:
        return min(wanted, max(self.placement.on_demand, self._knobs.base))

    async def scale(self, wanted: int) -> None:
        machines = await self._look()  # which may find that another acted meanwhile
        self.wanted, self._told = wanted, True
        await self._place(machines)

    async def replace(self, instance: str, left_s: float) -> bool:
        """Count it as gone, so that the rule puts another elsewhere now; its zone is left alone for
        a while. Then drain it.
        """
        machine = self._known.get(instance)
        if machine is None or instance in self._leaving:
            return False
        self._leaving.add(instance)
        if machine.zone in self.zones.by_name:
            self.zones.lost(machine.zone, self._clock.time())
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
        """Drain once others serve in its place; end it when its time is over and nobody has taken
        it.
        """
        gone_s = self._clock.monotonic() + left_s
        await await_replacement(self._full, self._clock, left_s)
        await self._retire(machine, "spot_notice", gone_s)

    async def _full(self) -> bool:
        """Whether enough serve beside those that leave, as last seen."""
        stay = [one for one in self._known.values() if one.serves and one.id not in self._leaving]
        return self._does(stay) >= self.wanted

    def _does(self, machines: Iterable[Machine]) -> float:
        """Wanted instances that these do; one on demand, or of a place that is used no more, counts
        as one.
        """
        sizes = self.zones.by_name
        return sum(sizes[one.zone].capacity if one.zone in sizes else 1.0 for one in machines)

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
        machines, now = await self._provider.machines(), self._clock.time()
        there = {one.id for one in machines}
        if now - self._looked_at > AWAY_S:
            await self._recall({one.zone for one in machines}, now)
        self._looked_at = now
        for gone in [one for one in self._known.values() if one.id not in there]:
            if gone.zone in self.zones.by_name and gone.id not in self._leaving:
                self.zones.lost(gone.zone, now)
            self._leaving.discard(gone.id)
        for new in [
            one for one in machines if one.id not in self._known and one.zone in self.zones.by_name
        ]:
            self.zones.launched(new.zone, now)  # also those that ran before this scaler began
        self._known = {one.id: one for one in machines}
        for zone, price in (await self._provider.prices()).items():
            if zone in self.zones.by_name:
                self.zones.priced(zone, price, now)
        self.zones.note()
        if self.zones.events != self._kept_events or now - self._kept_at >= KEEP_S:
            await self._keep(now)
        return [one for one in machines if one.id not in self._leaving]

    async def _recall(self, places: set[str], now: float) -> None:
        """Take up what the last one to act has learnt; nothing of it is changed where it cannot be
        read.
        """
        text = await self._memory.recall() if self._memory is not None else None
        if text is None or text == self._kept:
            return
        try:
            load(text, self.zones, now)
        except ValueError as error:
            log.warning("%s", error)
            return
        # Another acted meanwhile, or nobody did: what has gone was seen by it, what is wanted was
        # told to it.
        self._known.clear()
        self.wanted, self._told = 0, False
        self.zones.still_there(places)

    async def _keep(self, now: float) -> None:
        self._kept_at, self._kept_events = now, self.zones.events
        if self._memory is not None:
            self._kept = dump(self.zones)
            await self._memory.keep(self._kept)

    async def _place(self, machines: list[Machine]) -> None:
        now = self._clock.time()
        held = _held([one for one in machines if one.zone in self.zones.by_name])
        short = (
            sum(one.ready * self.zones.by_name[name].capacity for name, one in held.items())
            < self.wanted
        )
        self._short_since = (
            (now if self._short_since is None else self._short_since) if short else None
        )
        if self._solver is not None and now - self._solved_at >= SOLVE_S:
            self._solved_at = now
            self._plan = await asyncio.to_thread(self._solve, self._solver, held, now)
        lasted = 0.0 if self._short_since is None else now - self._short_since
        self.placement = place(self.wanted, held, self.zones, self._knobs, now, self._plan, lasted)
        await self._carry_out(self.placement, machines, now)

    def _solve(
        self, knobs: SolverSettings, held: Mapping[str, MachineCount], now: float
    ) -> Plan | None:
        names = list(self.zones.by_name)
        survive = np.array(
            [self.zones.survives(name, self._knobs.horizon_s, now) for name in names]
        )
        is_open = tuple(self.zones.by_name[name].retry_at_s <= now for name in names)
        rows = scenarios(list(self.zones.history), is_open, survive, SCENARIOS, self._rng)
        return solve(
            self.wanted,
            places(self.zones, {name: one.alive for name, one in held.items()}),
            rows,
            knobs,
        )

    async def _carry_out(
        self, placement: PlacementDecision, machines: list[Machine], now: float
    ) -> None:
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
        if self._does(one for one in machines if one.serves) >= self.wanted:
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


def _held(machines: list[Machine]) -> dict[str, MachineCount]:
    ready = Counter(one.zone for one in machines if one.zone and one.serves)
    starting = Counter(one.zone for one in machines if one.zone and not one.serves)
    return {zone: MachineCount(ready[zone], starting[zone]) for zone in {*ready, *starting}}


def places(zones: Offerings, held: Mapping[str, int]) -> list[SolverOffering]:
    """Zones as the solver takes them, with the machines held there."""
    return [
        SolverOffering(zone.name, zone.zone, zone.price, zone.capacity, held.get(zone.name, 0))
        for zone in zones.by_name.values()
    ]
