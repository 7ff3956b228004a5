"""A fleet of spot and on-demand machines as an actuator.

At every observation, the online rule compares the machines with the wanted number and decides
which to launch and stop. A solver may plan once a minute; the rule then follows its plan.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Iterable

import numpy as np
from penstock.scaler.actuate.actuator import Drain, FleetStatus
from penstock.scaler.spot.machine_stopper import MachineStopper
from penstock.scaler.spot.observer import FleetObserver, StateStore
from penstock.scaler.spot.offerings import Offering, Offerings
from penstock.scaler.spot.placement_rule import (
    MachineCount,
    PlacementDecision,
    SpotPolicy,
    SpotState,
    decide_placement,
)
from penstock.scaler.spot.planning import plan_machines
from penstock.scaler.spot.provider import Machine, SpotProvider
from penstock.scaler.spot.solver import Plan, SolverSettings
from penstock.service.clock import Clock

PLAN_EVERY_S = 60.0
SCENARIOS = 100


class SpotFleet:
    """Splits the wanted number over spot offerings and on demand; see `Actuator`.

    Attributes:
        offerings: what is learned about them.
        placement: the last decision.

    Args:
        solver: None leaves the online rule alone.
        drain: called before a machine is terminated.
        store: keeps what is learned over restarts; None forgets it.
    """

    def __init__(
        self,
        provider: SpotProvider,
        offerings: Iterable[Offering],
        clock: Clock,
        policy: SpotPolicy | None = None,
        *,
        solver: SolverSettings | None = None,
        drain: Drain | None = None,
        store: StateStore | None = None,
    ) -> None:
        self.offerings = Offerings(offerings)
        self.placement = PlacementDecision({}, {}, 0, "nothing asked yet")
        self._provider = provider
        self._clock = clock
        self._policy = policy or SpotPolicy()
        self._solver = solver
        self._observer = FleetObserver(provider, self.offerings, clock, store)
        self._stopper = MachineStopper(provider, self._observer, clock, drain)
        self._wanted: int | None = None
        """None before `scale`, and again after another scaler has acted."""
        self._short_since_s: float | None = None
        self._plan: Plan | None = None
        self._planned_at_s = -math.inf
        self._rng = np.random.default_rng(1)

    async def status(self) -> FleetStatus:
        """Return what runs, after placing machines anew.

        Before `scale` was called here, what another scaler started counts as wanted, so that a new
        leader does not begin from nothing.
        """
        await self._observe()
        if self._wanted:
            await self._place()
        wanted = self._need()
        serving = [one for one in self._observer.machines.values() if one.is_serving]
        return FleetStatus(wanted, min(wanted, math.floor(self._observer.capacity(serving))))

    def on_demand_count(self, wanted: int) -> int:
        return min(wanted, max(self.placement.on_demand, self._policy.on_demand_base))

    async def scale(self, wanted: int) -> None:
        await self._observe()
        self._wanted = wanted
        await self._place()

    async def replace(self, instance: str, remaining_s: float) -> bool:
        """Count a machine as lost, so that another is launched elsewhere now; then drain it."""
        machine = self._observer.machines.get(instance)
        if machine is None or instance in self._observer.stopping:
            return False
        self._wanted = self._need()
        self._observer.stopping.add(instance)
        if machine.offering in self.offerings.by_name:
            self.offerings.record_loss(machine.offering, self._clock.time())
        await self._observe()
        await self._place()
        self._stopper.stop_replaced(machine, remaining_s, self._has_enough)
        return True

    async def close(self) -> None:
        await self._stopper.close()

    async def _observe(self) -> None:
        if await self._observer.observe():
            self._wanted = None

    def _need(self) -> int:
        """The wanted number; before `scale`, that which the running machines were started for."""
        if self._wanted is not None:
            return self._wanted
        running = math.floor(self._observer.capacity(self._observer.staying))
        return max(0, running - self._policy.overprovision)

    async def _has_enough(self) -> bool:
        """Whether enough machines serve beside those that are being stopped, as last seen."""
        serving = [one for one in self._observer.staying if one.is_serving]
        return self._observer.capacity(serving) >= self._need()

    async def _place(self) -> None:
        machines = self._observer.staying
        state = self._state(machines)
        if self._solver is not None and state.now_s - self._planned_at_s >= PLAN_EVERY_S:
            self._planned_at_s = state.now_s
            horizon_s = self._policy.horizon_s
            self._plan = await asyncio.to_thread(
                plan_machines, state, horizon_s, self._solver, SCENARIOS, self._rng
            )
        self.placement = decide_placement(state, self._policy, self._plan)
        await self._launch(self.placement, machines, state.now_s)
        for machine in self._surplus(self.placement, machines):
            self._stop(machine, state.now_s)

    def _state(self, machines: list[Machine]) -> SpotState:
        now_s, need = self._clock.time(), self._need()
        known = [one for one in machines if one.offering in self.offerings.by_name]
        if self._observer.capacity(one for one in known if one.is_serving) >= need:
            self._short_since_s = None
        elif self._short_since_s is None:
            self._short_since_s = now_s
        shortage_s = 0.0 if self._short_since_s is None else now_s - self._short_since_s
        return SpotState(need, _counts(known), self.offerings, now_s, shortage_s)

    async def _launch(
        self, placement: PlacementDecision, machines: list[Machine], now_s: float
    ) -> None:
        for name, count in placement.launch.items():
            for _ in range(count):
                if not await self._provider.launch(name):
                    self.offerings.record_refusal(name, now_s)
                    break
                self.offerings.record_launch(name, now_s)
        on_demand = sum(not one.offering for one in machines)
        for _ in range(placement.on_demand - on_demand):
            await self._provider.launch("")

    def _surplus(self, placement: PlacementDecision, machines: list[Machine]) -> list[Machine]:
        """The machines to stop: the youngest, for one that has lasted is likelier to last.

        Those of offerings that are no longer configured go once others serve.
        """
        surplus = [one for one in machines if not one.offering][placement.on_demand :]
        for name, count in placement.stop.items():
            surplus += [one for one in machines if one.offering == name][-count:]
        serving = [one for one in machines if one.is_serving]
        if self._observer.capacity(serving) >= self._need():
            known = self.offerings.by_name
            surplus += [one for one in machines if one.offering and one.offering not in known]
        return surplus

    def _stop(self, machine: Machine, now_s: float) -> None:
        self._stopper.stop(machine)
        remaining = {one.offering for one in self._observer.staying}
        if machine.offering in self.offerings.by_name and machine.offering not in remaining:
            self.offerings.record_release(machine.offering, now_s)


def _counts(machines: list[Machine]) -> dict[str, MachineCount]:
    ready = Counter(one.offering for one in machines if one.is_serving)
    starting = Counter(one.offering for one in machines if not one.is_serving)
    return {name: MachineCount(ready[name], starting[name]) for name in [*ready, *starting]}
