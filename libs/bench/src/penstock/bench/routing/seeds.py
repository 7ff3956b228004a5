"""What a strategy does with the arrivals of one seed, and how long a pick takes."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import NamedTuple

from penstock.bench.harness.progress import say
from penstock.bench.routing import scenarios
from penstock.bench.routing.scenarios import EQUAL, FOUR_SPEEDS, HALF_SLOW
from penstock.router.instances.registry import LEARNING
from penstock.router.routing.choice import Chosen, choose
from penstock.router.routing.fleet import Fleet, Member
from penstock.router.routing.strategy import LeastAddedDelay, RequestFeatures
from penstock.simulation.fleet import SERVICE_S, FleetSimulation, scenario_at_load

OURS, ROUND_ROBIN, SHORTEST_QUEUE = "least_added_delay", "round_robin", "least_requests"
PICKS_PER_BATCH = 100


class SteadyLoad(NamedTuple):
    """A scenario without trouble: speeds, share of the capacity, slots."""

    speeds: tuple[float, ...]
    load: float
    slots: int


STEADY_LOADS = {
    "equal C=1 70 %": SteadyLoad(EQUAL, 0.7, 1),
    "equal C=1 80 %": SteadyLoad(EQUAL, 0.8, 1),
    "equal C=1 90 %": SteadyLoad(EQUAL, 0.9, 1),
    "equal C=4 90 %": SteadyLoad(EQUAL, 0.9, 4),
    "half slow C=1 60 %": SteadyLoad(HALF_SLOW, 0.6, 1),
    "half slow C=1 90 %": SteadyLoad(HALF_SLOW, 0.9, 1),
    "half slow C=4 90 %": SteadyLoad(HALF_SLOW, 0.9, 4),
    "four speeds C=1 90 %": SteadyLoad(FOUR_SPEEDS * 4, 0.9, 1),
    "four instances C=1 90 %": SteadyLoad((1.0,) * 4, 0.9, 1),
    "four instances, speeds 1/.7/.5/.3, 80 %": SteadyLoad(FOUR_SPEEDS, 0.8, 1),
}


class Tail(NamedTuple):
    """p95 and p99 in S."""

    p95: float
    p99: float


class OfSeed(NamedTuple):
    """What one strategy did with the arrivals of one seed."""

    steady: dict[str, Tail]
    half_slow: float
    equal: float
    slow_pair: float
    recovery_s: float
    fast_fail: float
    cold_join: float
    stale: float
    three_routers: float
    amplification: float


def of_seeds(
    pool: Executor, strategies: Mapping[int, Sequence[str]], seconds: float
) -> list[dict[str, OfSeed]]:
    """What the strategies of each seed did, computed by the processes of a pool."""
    jobs = [(name, seconds, seed) for seed, names in strategies.items() for name in names]
    found = dict(zip(jobs, pool.map(of_seed, *zip(*jobs, strict=True)), strict=True))
    return [
        {name: found[name, seconds, seed] for name in names} for seed, names in strategies.items()
    ]


def of_seed(strategy: str, seconds: float, seed: int) -> OfSeed:
    """Every scenario with the arrivals of one seed."""
    say(f"routing: {strategy}, seed {seed}")
    half_slow, equal = (
        scenarios.largest_load(strategy, scenario_at_load(speeds, 1.0, seconds, 4, seed))
        for speeds in (HALF_SLOW, EQUAL)
    )
    amplification = (
        max(1.0, scenarios.retry_amplification(OURS, (seed,))) if strategy == OURS else math.nan
    )
    return OfSeed(
        {name: _tail(strategy, load, seconds, seed) for name, load in STEADY_LOADS.items()},
        half_slow,
        equal,
        scenarios.slow_pair(strategy, seed),
        scenarios.recovery_s(strategy, seed),
        scenarios.fast_fail_share(strategy, seed),
        scenarios.cold_join_in_flight(strategy, seed),
        scenarios.stale_share(strategy, seed),
        scenarios.three_routers(strategy, seed),
        amplification,
    )


def _tail(strategy: str, load: SteadyLoad, seconds: float, seed: int) -> Tail:
    scenario = scenario_at_load(load.speeds, load.load, seconds, load.slots, seed)
    log = FleetSimulation(scenario, strategy).run()
    return Tail(log.quantile(0.95), log.quantile(0.99))


def small_fleet(seconds: float, seed: int) -> float:
    """Largest load of four equal instances over that of the shortest queue."""
    full = scenario_at_load((1.0,) * 4, 1.0, 4 * seconds, 1, seed)
    return scenarios.largest_load(OURS, full) / scenarios.largest_load(SHORTEST_QUEUE, full)


def picks_us(candidates: int = 16, picks: int = 20_000) -> list[float]:
    """Microseconds of a pick among 16, with the counting of its beginning and end, by batch."""
    fleet = Fleet(LEARNING, service_s=SERVICE_S)
    fleet.members = [Member(f"i{number}", 1, proven=True) for number in range(candidates)]
    rng = random.Random(1)
    rule = LeastAddedDelay()
    running: list[tuple[float, Member]] = []
    now = 0.0
    times_us = []
    for _ in range(picks // PICKS_PER_BATCH):
        began_s = time.process_time()
        for _ in range(PICKS_PER_BATCH):
            now += SERVICE_S / 14
            choice = choose(fleet, rule, RequestFeatures(), now, rng)
            assert isinstance(choice, Chosen)
            fleet.begin(choice.member, now)
            running.append((now, choice.member))
            if len(running) > 12:
                sent, done = running.pop(0)
                fleet.succeed(done, now, now - sent)
        times_us.append((time.process_time() - began_s) * 1e6 / PICKS_PER_BATCH)
    return times_us
