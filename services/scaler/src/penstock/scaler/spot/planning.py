"""Asks the solver for a plan, from what is learned about the offerings."""

from __future__ import annotations

import numpy as np
from penstock.scaler.spot.placement_rule import MachineCount, SpotState
from penstock.scaler.spot.solver import (
    Plan,
    SolverOffering,
    SolverSettings,
    draw_scenarios,
    solve,
)


def plan_machines(
    state: SpotState,
    horizon_s: float,
    settings: SolverSettings,
    scenarios: int,
    rng: np.random.Generator,
) -> Plan | None:
    """Return the solver's plan; None where it finds none in time.

    Takes up to a second: not for an event loop.

    Args:
        horizon_s: the time that machines should survive.
        scenarios: how many to draw.
    """
    offerings = state.offerings
    survival = np.array(
        [offerings.survival_probability(name, horizon_s, state.now_s) for name in offerings.by_name]
    )
    is_open = tuple(one.retry_at_s <= state.now_s for one in offerings.by_name.values())
    drawn = draw_scenarios(list(offerings.availability), is_open, survival, scenarios, rng)
    return solve(state.need, _solver_offerings(state), drawn, settings)


def _solver_offerings(state: SpotState) -> list[SolverOffering]:
    return [
        SolverOffering(
            one.name,
            one.zone,
            one.price,
            one.capacity,
            state.machines.get(one.name, MachineCount()).total,
        )
        for one in state.offerings.by_name.values()
    ]
