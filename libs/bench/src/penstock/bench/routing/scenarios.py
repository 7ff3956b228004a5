"""The scenarios of the routing benchmark, in virtual time with the serving policy.

S is the mean service time of the fastest instance. A function returns one number for a strategy and
a seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from penstock.simulation.fleet import SERVICE_S, FleetSimulation, Scenario, scenario_at_load

EQUAL = (1.0,) * 16
HALF_SLOW = (1.0,) * 8 + (0.5,) * 8
FOUR_SPEEDS = (1.0, 0.7, 0.5, 0.3)
ONSET_S = 20.0
"""When something goes wrong."""
OBJECTIVE_S = 12.0
"""The p99 that a fleet has to keep, in mean service times."""
SLOW_PAIR = ("i03", "i11")
SLOWDOWN = 1 / 16
FAST_FAILING = "i05"
OBSERVED_S = 60.0
NEVER_RECOVERED_S = 120.0
RECOVERED_FOR_S = 5.0
BISECTIONS = 7
PROVEN_AFTER = 3
"""Successes after which an instance is no newcomer."""


def largest_load(strategy: str, full: Scenario) -> float:
    """The largest share of the fleet's capacity with p99 within the objective, by bisection."""
    low, high = 0.1, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        scenario = replace(full, rate_per_s=full.rate_per_s * middle)
        if FleetSimulation(scenario, strategy).keeps(OBJECTIVE_S):
            low = middle
        else:
            high = middle
    return low


def slow_pair(strategy: str, seed: int) -> float:
    """p99 of a minute in which two of 16 are 16 times slower, over that of a healthy fleet.

    Load is 70 % of the 14 others, and of all 16.
    """
    end_s = ONSET_S + OBSERVED_S
    healthy = scenario_at_load(EQUAL, 0.7, end_s, seed=seed)
    slowed = replace(
        healthy,
        rate_per_s=healthy.rate_per_s * 14 / 16,
        events=((ONSET_S, lambda simulation: simulation.set_speed(SLOW_PAIR, SLOWDOWN)),),
    )
    slowed_p99, healthy_p99 = (
        FleetSimulation(scenario, strategy).run().quantile(0.99, ONSET_S, end_s)
        for scenario in (slowed, healthy)
    )
    return slowed_p99 / healthy_p99


def recovery_s(strategy: str, seed: int) -> float:
    """Seconds from the healing of a slowed pair until both have had half their share for 5 s.

    120 where that never happens.
    """
    healed_s = ONSET_S + OBSERVED_S
    events = (
        (ONSET_S, lambda simulation: simulation.set_speed(SLOW_PAIR, SLOWDOWN)),
        (healed_s, lambda simulation: simulation.set_speed(SLOW_PAIR, 1.0)),
    )
    scenario = scenario_at_load(EQUAL, 0.7 * 14 / 16, healed_s + NEVER_RECOVERED_S, seed=seed)
    log = FleetSimulation(replace(scenario, events=events), strategy).run()
    half_share = 0.5 / len(EQUAL)
    for waited_s in range(int(NEVER_RECOVERED_S - RECOVERED_FOR_S) + 1):
        start_s = healed_s + waited_s
        end_s = start_s + RECOVERED_FOR_S
        if all(log.share(name, start_s, end_s) >= half_share for name in SLOW_PAIR):
            return waited_s + RECOVERED_FOR_S
    return NEVER_RECOVERED_S


def fast_fail_share(strategy: str, seed: int) -> float:
    """Share of the picks, retries included, of an instance that begins to fail within 1 ms.

    Over the 10 s after it begins.
    """

    def fail(simulation: FleetSimulation) -> None:
        simulation.by_name[FAST_FAILING].failing = True

    end_s = ONSET_S + 10.0
    scenario = replace(scenario_at_load(EQUAL, 0.7, end_s, seed=seed), events=((ONSET_S, fail),))
    return FleetSimulation(scenario, strategy).run().share(FAST_FAILING, ONSET_S, end_s)


def cold_join_in_flight(strategy: str, seed: int) -> float:
    """Most requests in flight at a newcomer among eight until it has succeeded three times."""
    most = 0

    def watch(simulation: FleetSimulation, name: str) -> None:
        nonlocal most
        member = simulation.routers[0].members[name]
        if member.successes < PROVEN_AFTER:
            most = max(most, member.own)
            simulation.at(simulation.now_s + SERVICE_S / 20, lambda: watch(simulation, name))

    def join(simulation: FleetSimulation) -> None:
        watch(simulation, simulation.add_instance(1.0))

    scenario = scenario_at_load((1.0,) * 8, 0.9, ONSET_S, seed=seed)
    FleetSimulation(replace(scenario, events=((ONSET_S / 2, join),)), strategy).run()
    return float(most)


def stale_share(strategy: str, seed: int) -> float:
    """The busiest instance's share over the fair one while no load report arrives for 10 s.

    Three routers at 80 % load.
    """
    silent_s = (ONSET_S, ONSET_S + 10.0)
    scenario = scenario_at_load(EQUAL, 0.8, silent_s[1] + 1.0, seed=seed, routers=3)
    simulation = FleetSimulation(replace(scenario, no_reports_s=silent_s), strategy)
    log = simulation.run()
    largest = max(log.share(instance.name, *silent_s) for instance in simulation.instances)
    return largest * len(simulation.instances)


def three_routers(strategy: str, seed: int) -> float:
    """p99 of three routers over that of one; equal fleet, one slot, 90 % load."""
    three, one = (
        FleetSimulation(
            scenario_at_load(EQUAL, 0.9, OBSERVED_S, seed=seed, routers=routers), strategy
        )
        for routers in (3, 1)
    )
    return three.run().quantile(0.99) / one.run().quantile(0.99)


def retry_amplification(strategy: str, seeds: Sequence[int]) -> float:
    """Attempts over requests while one of four instances fails, and while all do; the larger."""
    return max(
        _attempts_per_request(strategy, failing, seed) for failing in (1, 4) for seed in seeds
    )


def _attempts_per_request(strategy: str, failing: int, seed: int) -> float:
    def fail(simulation: FleetSimulation) -> None:
        for instance in simulation.instances[:failing]:
            instance.failing = True

    scenario = scenario_at_load((1.0,) * 4, 0.5, ONSET_S + 30.0, seed=seed)
    log = FleetSimulation(replace(scenario, events=((ONSET_S, fail),)), strategy).run()
    attempts = sum(1 for at_s, _ in log.picks if at_s >= ONSET_S)
    requests = sum(1 for arrived_s, _ in log.latencies_s if arrived_s >= ONSET_S)
    return attempts / requests
