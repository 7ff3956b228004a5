"""Choosing an instance: every strategy in every scenario, in virtual time, with the very policy
code that serves.

S is the mean service time of the fastest instance (50 ms here, log-normal, coefficient of variation
1). Arrivals are Poisson and the same for all strategies; all have the same error handling, ejection
included. Round robin starts at a random position. `small_fleet_rps_vs_jsq` alone is measured on
four real processes. Scenarios and definitions: fleets of 16 and 4, first come first served (C = 1)
or processor sharing (C = 4).
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Iterable
from dataclasses import replace

from penstock.bench.harness.options import Options
from penstock.bench.harness.report import Bound, Plot, Result, Table
from penstock.bench.routing import late_binding as routing_late
from penstock.bench.routing import prefix as routing_prefix
from penstock.bench.routing import processes as routing_fleet
from penstock.router.instances.registry import LEARNING
from penstock.router.routing.choice import Chosen, choose
from penstock.router.routing.fleet import Fleet, Member
from penstock.router.routing.least_added_delay import LeastAddedDelay
from penstock.router.routing.strategies import STRATEGIES
from penstock.router.routing.strategy import RequestFeatures
from penstock.simulation.fleet import SERVICE_S, Simulation, World, at_load

OURS, BASE = "least_added_delay", "round_robin"
EQUAL, HALF = (1.0,) * 16, (1.0,) * 8 + (0.5,) * 8
FOUR = (1.0, 0.7, 0.5, 0.3)
ONSET_S = 20.0
OBJECTIVE_S = 12.0
SEEDS = (1, 2, 3, 4)

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


def run(options: Options) -> Result:
    seeds = SEEDS[:1] if options.quick else SEEDS
    seconds = 10.0 if options.quick else 60.0
    strategies = (OURS, BASE, "least_requests") if options.quick else tuple(STRATEGIES)
    steady = {name: _steady(name, seconds, seeds) for name in strategies}
    reach = {name: _throughputs(name, seconds, seeds[:1]) for name in strategies}
    failing = {name: _failures(name, seeds) for name in strategies}
    reuse = routing_prefix.measure(options)
    ours = failing[OURS]
    amplification, retried = _retry_amplification(seeds)
    figures: dict[str, float] = {
        "throughput_vs_round_robin": reach[OURS]["half"] / reach[BASE]["half"],
        "throughput_equal_fleet": reach[OURS]["equal"] / reach[BASE]["equal"],
        "p95_cut_vs_round_robin": 1.0
        - steady[OURS]["equal C=1 80 %"][0] / steady[BASE]["equal C=1 80 %"][0],
        "slow_pair_p99_vs_all_fast": ours["slow pair"],
        "recovery_s": ours["recovery"],
        "fast_fail_share": ours["fast fail"],
        "cold_join_max_in_flight": ours["cold join"],
        "stale_max_share": ours["stale"],
        "three_routers_p99_ratio": ours["three routers"],
        "small_fleet_rps_vs_jsq": routing_fleet.measure(options),
        "small_fleet_load_vs_jsq_simulated": _small_fleet(seconds, seeds),
        "prefix_hit_rate": reuse["affinity"].hit_rate,
        "prefix_p99_vs_no_affinity": reuse["affinity"].p99 / reuse["no affinity"].p99,
        "retry_amplification": amplification,
        "pick_us": _pick_us(),
    }
    context = {
        "data": {
            "mooncake": options.source("mooncake"),
            "arrivals": "generated: Poisson, log-normal sizes",
        },
        "seeds": list(seeds),
        "service_s": SERVICE_S,
        "seconds_simulated": seconds,
        "learning": str(LEARNING),
        "retried_share": retried,
    }
    late = routing_late.table(seconds, seeds)
    tables = (
        _steady_table(steady),
        _reach_table(reach),
        _failure_table(failing),
        late,
        _reuse_table(reuse),
    )
    notes = (
        (
            "Late binding beats the default with one router and next to no round trip (the "
            "first tables have none); over more than 5 % "
            "of S, unmeasured, or with several routers it is the default."
        ),
        (
            "`throughput_equal_fleet` has no bound: on equal instances the choice cannot give "
            "more than a few per cent."
        ),
    )
    return Result(figures, BOUNDS, context, tables, (_plot(steady),), notes)


SCENES: dict[str, tuple[tuple[float, ...], float, int]] = {
    "equal C=1 70 %": (EQUAL, 0.7, 1),
    "equal C=1 80 %": (EQUAL, 0.8, 1),
    "equal C=1 90 %": (EQUAL, 0.9, 1),
    "equal C=4 90 %": (EQUAL, 0.9, 4),
    "half slow C=1 60 %": (HALF, 0.6, 1),
    "half slow C=1 90 %": (HALF, 0.9, 1),
    "half slow C=4 90 %": (HALF, 0.9, 4),
    "four speeds C=1 90 %": (FOUR * 4, 0.9, 1),
    "four instances C=1 90 %": ((1.0,) * 4, 0.9, 1),
    "four instances, speeds 1/.7/.5/.3, 80 %": (FOUR, 0.8, 1),
}


def _steady(
    strategy: str, seconds: float, seeds: tuple[int, ...]
) -> dict[str, tuple[float, float]]:
    """(p95, p99) in S of each scene, mean over seeds."""
    found = {}
    for name, (speeds, load, slots) in SCENES.items():
        logs = [
            Simulation(at_load(speeds, load, seconds, slots, seed), strategy).run()
            for seed in seeds
        ]
        found[name] = (
            _mean(log.quantile(0.95) for log in logs),
            _mean(log.quantile(0.99) for log in logs),
        )
    return found


def _mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)


def _throughputs(strategy: str, seconds: float, seeds: tuple[int, ...]) -> dict[str, float]:
    """Largest share of the fleet's capacity with p99 within the objective, four slots, by
    bisection.
    """
    return {
        name: _mean(_largest(strategy, at_load(speeds, 1.0, seconds, 4, seed)) for seed in seeds)
        for name, speeds in (("half", HALF), ("equal", EQUAL))
    }


def _largest(strategy: str, full: World) -> float:
    low, high = 0.1, 1.0
    for _ in range(7):
        middle = (low + high) / 2
        world = replace(full, rate=full.rate * middle)
        good = Simulation(world, strategy).run().quantile(0.99) <= OBJECTIVE_S
        low, high = (middle, high) if good else (low, middle)
    return low


def _small_fleet(seconds: float, seeds: tuple[int, ...]) -> float:
    """Largest load of four equal instances with p99 within the objective, against the shortest
    queue.
    """
    ratios = []
    for seed in seeds:
        full = at_load((1.0,) * 4, 1.0, 4 * seconds, 1, seed)
        ratios.append(_largest(OURS, full) / _largest("least_requests", full))
    return statistics.median(ratios)


def _failures(strategy: str, seeds: tuple[int, ...]) -> dict[str, float]:
    """The figures of trouble for one strategy, the mean over seeds (the worst for shares, counts
    and times).
    """
    return {
        "slow pair": _mean(_slow_pair(strategy, seed) for seed in seeds),
        "recovery": max(_recovery(strategy, seed) for seed in seeds),
        "fast fail": _mean(_fast_fail(strategy, seed) for seed in seeds),
        "cold join": max(_cold_join(strategy, seed) for seed in seeds),
        "stale": max(_stale(strategy, seed) for seed in seeds),
        "three routers": _mean(_three_routers(strategy, seed) for seed in seeds),
    }


PAIR = ("i03", "i11")


def _slow_pair(strategy: str, seed: int) -> float:
    """p99 of 60 s from the moment two of 16 are slowed 16 times, at 70 % of the 14, over that of 16
    fast ones at 70 %.
    """
    end = ONSET_S + 60.0
    fast = at_load(EQUAL, 0.7, end, seed=seed)
    slowed = replace(
        fast, rate=fast.rate * 14 / 16, events=((ONSET_S, lambda sim: sim.slow(PAIR, 1 / 16)),)
    )
    return _window(slowed, strategy, end) / _window(fast, strategy, end)


def _window(world: World, strategy: str, end: float) -> float:
    return Simulation(world, strategy).run().quantile(0.99, ONSET_S, end)


def _recovery(strategy: str, seed: int) -> float:
    """Seconds from the healing of a slowed pair until each has had half its fair share for 5 s; 120
    when it never happens.
    """
    healed = ONSET_S + 60.0
    events = (
        (ONSET_S, lambda sim: sim.slow(PAIR, 1 / 16)),
        (healed, lambda sim: sim.slow(PAIR, 1.0)),
    )
    world = replace(at_load(EQUAL, 0.7 * 14 / 16, healed + 120.0, seed=seed), events=events)
    log = Simulation(world, strategy).run()
    for waited in range(116):
        start = healed + waited
        if all(log.share(name, start, start + 5.0) >= 0.5 / 16 for name in PAIR):
            return waited + 5.0
    return 120.0


def _fast_fail(strategy: str, seed: int) -> float:
    """Share of the picks, retries included, that an instance gets in the 10 s after it begins to
    fail within 1 ms.
    """

    def begin(sim: Simulation) -> None:
        sim.by_name["i05"].failing = True

    world = replace(at_load(EQUAL, 0.7, ONSET_S + 10.0, seed=seed), events=((ONSET_S, begin),))
    return Simulation(world, strategy).run().share("i05", ONSET_S, ONSET_S + 10.0)


def _cold_join(strategy: str, seed: int) -> float:
    """Most requests in flight at a newcomer among eight until it has succeeded three times."""
    most = 0

    def watch(sim: Simulation, name: str) -> None:
        nonlocal most
        member = sim.routers[0].members[name]
        if member.successes < 3:
            most = max(most, member.own)
            sim.at(sim.now + SERVICE_S / 20, lambda: watch(sim, name))

    world = replace(
        at_load((1.0,) * 8, 0.9, ONSET_S, seed=seed),
        events=((ONSET_S / 2, lambda sim: watch(sim, sim.join(1.0))),),
    )
    Simulation(world, strategy).run()
    return float(most)


def _stale(strategy: str, seed: int) -> float:
    """Busiest instance over the fair share while no report arrives for 10 s; three routers at 80
    %.
    """
    frozen = (ONSET_S, ONSET_S + 10.0)
    world = replace(at_load(EQUAL, 0.8, frozen[1] + 1.0, seed=seed, routers=3), frozen=frozen)
    sim = Simulation(world, strategy)
    log = sim.run()
    return max(log.share(server.name, *frozen) for server in sim.servers) * len(sim.servers)


def _three_routers(strategy: str, seed: int) -> float:
    """p99 of three routers over that of one, equal fleet, one slot, 90 %."""
    three, one = (at_load(EQUAL, 0.9, 60.0, seed=seed, routers=routers) for routers in (3, 1))
    return Simulation(three, strategy).run().quantile(0.99) / Simulation(
        one, strategy
    ).run().quantile(0.99)


def _retry_amplification(seeds: tuple[int, ...]) -> tuple[float, float]:
    """Tries over requests while one of four instances fails wholly, and while all do; the worse,
    with the share that was retried.
    """
    worst, retried = 1.0, 0.0
    for failing in (1, 4):

        def begin(sim: Simulation, failing: int = failing) -> None:
            for server in sim.servers[:failing]:
                server.failing = True

        for seed in seeds:
            world = replace(
                at_load((1.0,) * 4, 0.5, ONSET_S + 30.0, seed=seed), events=((ONSET_S, begin),)
            )
            log = Simulation(world, OURS).run()
            tries = sum(1 for at, _ in log.picks if at >= ONSET_S)
            asked = sum(1 for arrived, _ in log.latencies if arrived >= ONSET_S)
            worst, retried = max(worst, tries / asked), max(retried, tries / asked - 1.0)
    return worst, retried


def _pick_us(candidates: int = 16, picks: int = 20_000) -> float:
    """Microseconds of one pick among 16, the counting of its beginning and end included; median of
    batches of 100.
    """
    fleet, rng, rule = Fleet(LEARNING, service_s=SERVICE_S), random.Random(1), LeastAddedDelay()
    fleet.members = [Member(f"i{number}", 1, proven=True) for number in range(candidates)]
    running: list[tuple[float, Member]] = []
    now, times = 0.0, []
    for _ in range(picks // 100):
        began = time.perf_counter()
        for _ in range(100):
            now += SERVICE_S / 14
            choice = choose(fleet, rule, RequestFeatures(), now, rng)
            assert isinstance(choice, Chosen)
            fleet.begin(choice.member, now)
            running.append((now, choice.member))
            if len(running) > 12:
                sent, done = running.pop(0)
                fleet.succeed(done, now, now - sent)
        times.append((time.perf_counter() - began) * 1e4)
    return statistics.median(times)


def _steady_table(steady: dict[str, dict[str, tuple[float, float]]]) -> Table:
    rows = tuple(
        (
            scene,
            *(f"{steady[name][scene][0]:.1f} / {steady[name][scene][1]:.1f}" for name in steady),
        )
        for scene in SCENES
    )
    return Table("p95 / p99 in S", ("scenario", *steady), rows)


def _reach_table(reach: dict[str, dict[str, float]]) -> Table:
    rows = tuple((name, found["half"], found["equal"]) for name, found in reach.items())
    return Table(
        "Largest share of capacity with p99 ≤ 12 S (16 instances, 4 slots)",
        ("strategy", "half slow", "equal"),
        rows,
    )


def _failure_table(failing: dict[str, dict[str, float]]) -> Table:
    columns = tuple(failing[OURS])
    return Table(
        "Trouble: slow pair p99 ratio, recovery in s (120: never), share of a fast-failing "
        "instance, most in flight at a newcomer, "
        "worst share with frozen reports, p99 ratio of three routers to one",
        ("strategy", *columns),
        tuple((name, *(found[column] for column in columns)) for name, found in failing.items()),
    )


def _reuse_table(reuse: dict[str, routing_prefix.Reuse]) -> Table:
    rows = tuple((name, found.hit_rate, found.p99) for name, found in reuse.items())
    return Table(
        "Prefix reuse at 70 % load", ("choice", "hits ÷ infinite shared cache", "p99 in S"), rows
    )


def _plot(steady: dict[str, dict[str, tuple[float, float]]]) -> Plot:
    scenes = [
        scene
        for scene in SCENES
        if all(steady[name][scene][1] < 100 or name == BASE for name in steady)
    ]
    series = {
        name: (
            [float(number) for number in range(len(scenes))],
            [min(steady[name][scene][1], 40.0) for scene in scenes],
        )
        for name in steady
    }
    return Plot(
        "p99 by scenario, in S (cut at 40)", "scenario, in the table's order", "p99 / S", series
    )
