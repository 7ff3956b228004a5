"""Choosing an instance: every strategy in every scenario, in virtual time, with the serving policy.

S is the mean service time of the fastest instance (50 ms here, log-normal, coefficient of variation
1). Arrivals are Poisson and the same for all strategies; all have the same error handling, ejection
included. Round robin starts at a random position. `small_fleet_rps_vs_jsq` alone is measured on
four real processes. Fleets have 16 or 4 instances, first come first served (C = 1) or processor
sharing (C = 4).
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from penstock.bench.harness.options import Options
from penstock.bench.harness.report import Bound, Plot, Result, Table
from penstock.bench.routing import late_binding, prefix, processes, scenarios
from penstock.bench.routing.prefix import MOONCAKE, Reuse
from penstock.bench.routing.scenarios import EQUAL, FOUR_SPEEDS, HALF_SLOW
from penstock.router.instances.registry import LEARNING
from penstock.router.routing.choice import Chosen, choose
from penstock.router.routing.fleet import Fleet, Member
from penstock.router.routing.strategies import STRATEGIES
from penstock.router.routing.strategy import LeastAddedDelay, RequestFeatures
from penstock.simulation.fleet import SERVICE_S, FleetSimulation, scenario_at_load

OURS, ROUND_ROBIN, SHORTEST_QUEUE = "least_added_delay", "round_robin", "least_requests"
SEEDS = (1, 2, 3, 4)
PICKS_PER_BATCH = 100
PLOT_CUT = 40.0
"""p99 in S above which the plot is cut."""
BOUNDS = {
    "throughput_vs_round_robin": Bound(">=", 1.6),
    "p95_cut_vs_round_robin": Bound(">=", 0.55),
    "slow_pair_p99_vs_all_fast": Bound("<=", 1.15),
    "recovery_s": Bound("<=", 30),
    "fast_fail_share": Bound("<=", 0.01),
    "cold_join_max_in_flight": Bound("<=", 1),
    "stale_max_share": Bound("<=", 1.5),
    "three_routers_p99_ratio": Bound("<=", 1.25),
    "small_fleet_rps_vs_jsq": Bound(">=", 0.98),
    "prefix_hit_rate": Bound(">=", 0.7),
    "prefix_p99_vs_no_affinity": Bound("<=", 1.1),
    "retry_amplification": Bound("<=", 1.1),
    "pick_us": Bound("<=", 30),
}
NOTES = (
    (
        "Late binding beats the default with one router and next to no round trip (the first "
        "tables have none); with a round trip of more than 5 % of S, an unmeasured one, or several "
        "routers it is the default."
    ),
    (
        "`throughput_equal_fleet` has no bound: on equal instances the choice cannot gain more "
        "than a few per cent."
    ),
)


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


class Capacity(NamedTuple):
    """Largest share of the capacity with p99 within the objective."""

    half_slow: float
    equal: float


class Trouble(NamedTuple):
    """The figures of the scenarios with trouble."""

    slow_pair: float
    recovery_s: float
    fast_fail: float
    cold_join: float
    stale: float
    three_routers: float


def run(options: Options) -> Result:
    """Measure."""
    seeds = SEEDS[:1] if options.quick else SEEDS
    seconds = 10.0 if options.quick else 60.0
    names = (OURS, ROUND_ROBIN, SHORTEST_QUEUE) if options.quick else tuple(STRATEGIES)
    steady = {name: _steady(name, seconds, seeds) for name in names}
    capacity = {name: _capacity(name, seconds, seeds[:1]) for name in names}
    trouble = {name: _trouble(name, seeds) for name in names}
    reuse = prefix.measure(options)
    amplification = max(1.0, scenarios.retry_amplification(OURS, seeds))
    ours = trouble[OURS]
    at_80 = "equal C=1 80 %"
    figures: dict[str, float] = {
        "throughput_vs_round_robin": capacity[OURS].half_slow / capacity[ROUND_ROBIN].half_slow,
        "throughput_equal_fleet": capacity[OURS].equal / capacity[ROUND_ROBIN].equal,
        "p95_cut_vs_round_robin": 1.0 - steady[OURS][at_80].p95 / steady[ROUND_ROBIN][at_80].p95,
        "slow_pair_p99_vs_all_fast": ours.slow_pair,
        "recovery_s": ours.recovery_s,
        "fast_fail_share": ours.fast_fail,
        "cold_join_max_in_flight": ours.cold_join,
        "stale_max_share": ours.stale,
        "three_routers_p99_ratio": ours.three_routers,
        "small_fleet_rps_vs_jsq": processes.measure(options),
        "small_fleet_load_vs_jsq_simulated": _small_fleet(seconds, seeds),
        "prefix_hit_rate": reuse["affinity"].hit_rate,
        "prefix_p99_vs_no_affinity": reuse["affinity"].p99 / reuse["no affinity"].p99,
        "retry_amplification": amplification,
        "pick_us": _pick_us(),
    }
    context = {
        "data": {
            MOONCAKE: options.source(MOONCAKE),
            "arrivals": "generated: Poisson, log-normal sizes",
        },
        "seeds": list(seeds),
        "service_s": SERVICE_S,
        "seconds_simulated": seconds,
        "learning": str(LEARNING),
        "retried_share": amplification - 1.0,
    }
    tables = (
        _steady_table(steady),
        _capacity_table(capacity),
        _trouble_table(trouble),
        late_binding.table(seconds, seeds),
        _reuse_table(reuse),
    )
    return Result(figures, BOUNDS, context, tables, (_plot(steady),), NOTES)


def _steady(strategy: str, seconds: float, seeds: Sequence[int]) -> dict[str, Tail]:
    """The tail of each steady load, mean over the seeds."""
    tails = {}
    for name, (speeds, load, slots) in STEADY_LOADS.items():
        logs = [
            FleetSimulation(scenario_at_load(speeds, load, seconds, slots, seed), strategy).run()
            for seed in seeds
        ]
        tails[name] = Tail(
            statistics.fmean(log.quantile(0.95) for log in logs),
            statistics.fmean(log.quantile(0.99) for log in logs),
        )
    return tails


def _capacity(strategy: str, seconds: float, seeds: Sequence[int]) -> Capacity:
    half_slow, equal = (
        statistics.fmean(
            scenarios.largest_load(strategy, scenario_at_load(speeds, 1.0, seconds, 4, seed))
            for seed in seeds
        )
        for speeds in (HALF_SLOW, EQUAL)
    )
    return Capacity(half_slow, equal)


def _small_fleet(seconds: float, seeds: Sequence[int]) -> float:
    """Largest load of four equal instances over that of the shortest queue."""
    ratios = []
    for seed in seeds:
        full = scenario_at_load((1.0,) * 4, 1.0, 4 * seconds, 1, seed)
        ours = scenarios.largest_load(OURS, full)
        ratios.append(ours / scenarios.largest_load(SHORTEST_QUEUE, full))
    return statistics.median(ratios)


def _trouble(strategy: str, seeds: Sequence[int]) -> Trouble:
    """Ratios and shares as means over the seeds, counts and times as the worst of them."""
    return Trouble(
        statistics.fmean(scenarios.slow_pair(strategy, seed) for seed in seeds),
        max(scenarios.recovery_s(strategy, seed) for seed in seeds),
        statistics.fmean(scenarios.fast_fail_share(strategy, seed) for seed in seeds),
        max(scenarios.cold_join_in_flight(strategy, seed) for seed in seeds),
        max(scenarios.stale_share(strategy, seed) for seed in seeds),
        statistics.fmean(scenarios.three_routers(strategy, seed) for seed in seeds),
    )


def _pick_us(candidates: int = 16, picks: int = 20_000) -> float:
    """Microseconds of a pick among 16, with the counting of its beginning and end.

    Median of batches of 100 picks.
    """
    fleet = Fleet(LEARNING, service_s=SERVICE_S)
    fleet.members = [Member(f"i{number}", 1, proven=True) for number in range(candidates)]
    rng = random.Random(1)
    rule = LeastAddedDelay()
    running: list[tuple[float, Member]] = []
    now = 0.0
    times_us = []
    for _ in range(picks // PICKS_PER_BATCH):
        began_s = time.perf_counter()
        for _ in range(PICKS_PER_BATCH):
            now += SERVICE_S / 14
            choice = choose(fleet, rule, RequestFeatures(), now, rng)
            assert isinstance(choice, Chosen)
            fleet.begin(choice.member, now)
            running.append((now, choice.member))
            if len(running) > 12:
                sent, done = running.pop(0)
                fleet.succeed(done, now, now - sent)
        times_us.append((time.perf_counter() - began_s) * 1e6 / PICKS_PER_BATCH)
    return statistics.median(times_us)


Steady = Mapping[str, Mapping[str, Tail]]
"""Tails by strategy and steady load."""


def _steady_table(steady: Steady) -> Table:
    rows = tuple(
        (load, *(f"{tails[load].p95:.1f} / {tails[load].p99:.1f}" for tails in steady.values()))
        for load in STEADY_LOADS
    )
    return Table("p95 / p99 in S", ("scenario", *steady), rows)


def _capacity_table(capacity: Mapping[str, Capacity]) -> Table:
    return Table(
        "Largest share of capacity with p99 ≤ 12 S (16 instances, 4 slots)",
        ("strategy", "half slow", "equal"),
        tuple((name, *values) for name, values in capacity.items()),
    )


def _trouble_table(trouble: Mapping[str, Trouble]) -> Table:
    title = (
        "Trouble: p99 ratio of a slow pair, recovery in s (120: never), share of a fast-failing "
        "instance, most in flight at a newcomer, worst share without reports, p99 ratio of three "
        "routers to one"
    )
    columns = (
        "strategy",
        "slow pair",
        "recovery",
        "fast fail",
        "cold join",
        "stale",
        "three routers",
    )
    return Table(title, columns, tuple((name, *values) for name, values in trouble.items()))


def _reuse_table(reuse: Mapping[str, Reuse]) -> Table:
    rows = tuple((name, found.hit_rate, found.p99) for name, found in reuse.items())
    columns = ("choice", "hits ÷ infinite shared cache", "p99 in S")
    return Table("Prefix reuse at 70 % load", columns, rows)


def _plot(steady: Steady) -> Plot:
    """p99 by steady load; loads that only round robin survives badly are kept."""
    loads = [
        load
        for load in STEADY_LOADS
        if all(tails[load].p99 < 100 for name, tails in steady.items() if name != ROUND_ROBIN)
    ]
    numbers = [float(number) for number in range(len(loads))]
    series = {
        name: (numbers, [min(tails[load].p99, PLOT_CUT) for load in loads])
        for name, tails in steady.items()
    }
    x_label = "scenario, in the table's order"
    return Plot(f"p99 by scenario, in S (cut at {PLOT_CUT:g})", x_label, "p99 / S", series)
