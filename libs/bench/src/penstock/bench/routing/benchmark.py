"""Choosing an instance, simulated: every strategy in every scenario, in virtual time, with the
serving policy.

S is the mean service time of the fastest instance (50 ms here, log-normal, coefficient of variation
1). Arrivals are Poisson and the same for all strategies; all have the same error handling, ejection
included. Round robin starts at a random position. `small_fleet_rps_vs_jsq` alone is measured on
four real processes. Fleets have 16 or 4 instances, first come first served (C = 1) or processor
sharing (C = 4). The simulator is ours as the policy is: it shows what a choice does under stated
arrivals, sizes and speeds, not what traffic is like. `*_vs_least_requests` compares with what a
competent operator would set instead of round robin; no strategy can have more than the whole
capacity. Intervals of the default strategy, of round robin and of least requests are over the seeds
of the arrivals, those of prefix reuse over parts of the trace; the other strategies have two seeds.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from functools import partial

from penstock.bench.harness.intervals import bootstrap, medians
from penstock.bench.harness.options import Options
from penstock.bench.harness.pool import process_per_core
from penstock.bench.harness.report import Bound, Plot, Result, Table
from penstock.bench.routing import late_binding, prefix, processes
from penstock.bench.routing.prefix import MOONCAKE, Reuse
from penstock.bench.routing.seeds import (
    OURS,
    ROUND_ROBIN,
    SHORTEST_QUEUE,
    STEADY_LOADS,
    OfSeed,
    Tail,
    of_seeds,
    picks_us,
    small_fleet,
)
from penstock.router.instances.registry import LEARNING
from penstock.router.routing.strategies import STRATEGIES
from penstock.simulation.fleet import SERVICE_S

SEEDS = tuple(range(1, 9))
OTHERS_SEEDS = SEEDS[:2]
"""Of the strategies that no figure is of."""
SECONDS, QUICK_SECONDS = 25.0, 3.0
"""Of simulated arrivals."""
AT_80 = "equal C=1 80 %"
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


BySeed = Sequence[Mapping[str, OfSeed]]
"""By seed, and then by strategy."""
COMPARED = (OURS, ROUND_ROBIN, SHORTEST_QUEUE)


def run(options: Options) -> Result:
    """Measure."""
    seeds = SEEDS[:1] if options.quick else SEEDS
    seconds = QUICK_SECONDS if options.quick else SECONDS
    strategies = {seed: _strategies_of(seed, options) for seed in seeds}
    with process_per_core() as pool:
        reused = pool.submit(prefix.measure, options)
        by_seed = of_seeds(pool, strategies, seconds)
        loads = pool.map(partial(small_fleet, seconds), seeds)
        small = [{"small_fleet_load_vs_jsq_simulated": load} for load in loads]
        reuse = reused.result()
    parts = prefix.parts(reuse)
    ratios = [{"small_fleet_rps_vs_jsq": ratio} for ratio in processes.measure(options)]
    picks = [{"pick_us": took_us} for took_us in picks_us()]
    figures = {
        **_figures(by_seed),
        **medians(ratios),
        **medians(small),
        **prefix.figures(parts),
        **medians(picks),
    }
    intervals = {
        **bootstrap(by_seed, _figures, "seeds", 2_000),
        **bootstrap(ratios, medians, "rounds"),
        **bootstrap(small, medians, "seeds"),
        **bootstrap(parts, prefix.figures, "parts of the trace", 1_000),
        **bootstrap(picks, medians, "batches of 100 picks", 1_000),
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
    }
    tables = (
        _steady_table(_steady(by_seed)),
        _capacity_table(by_seed),
        _trouble_table(by_seed),
        late_binding.table(seconds, seeds[: len(OTHERS_SEEDS)]),
        _reuse_table(reuse),
    )
    plots = (_plot(_steady(by_seed)),)
    return Result(figures, BOUNDS, context, tables, plots, NOTES, intervals)


def _strategies_of(seed: int, options: Options) -> tuple[str, ...]:
    if options.quick or seed not in OTHERS_SEEDS:
        return COMPARED
    return tuple(STRATEGIES)


def _figures(by_seed: BySeed) -> dict[str, float]:
    """Ratios and shares as means over the seeds, counts and times as the worst of them."""
    mean = statistics.fmean
    seeds = {name: [each[name] for each in by_seed] for name in COMPARED}
    half_slow = {name: mean(one.half_slow for one in ones) for name, ones in seeds.items()}
    equal = {name: mean(one.equal for one in ones) for name, ones in seeds.items()}
    p95 = {name: mean(one.steady[AT_80].p95 for one in ones) for name, ones in seeds.items()}
    ours = seeds[OURS]
    return {
        "throughput_vs_round_robin": half_slow[OURS] / half_slow[ROUND_ROBIN],
        "throughput_vs_least_requests": half_slow[OURS] / half_slow[SHORTEST_QUEUE],
        "throughput_equal_fleet": equal[OURS] / equal[ROUND_ROBIN],
        "p95_cut_vs_round_robin": 1.0 - p95[OURS] / p95[ROUND_ROBIN],
        "p95_cut_vs_least_requests": 1.0 - p95[OURS] / p95[SHORTEST_QUEUE],
        "slow_pair_p99_vs_all_fast": mean(one.slow_pair for one in ours),
        "recovery_s": max(one.recovery_s for one in ours),
        "fast_fail_share": mean(one.fast_fail for one in ours),
        "cold_join_max_in_flight": max(one.cold_join for one in ours),
        "stale_max_share": max(one.stale for one in ours),
        "three_routers_p99_ratio": mean(one.three_routers for one in ours),
        "retry_amplification": max(one.amplification for one in ours),
    }


def _of_strategy(by_seed: BySeed) -> dict[str, list[OfSeed]]:
    """The seeds of each strategy."""
    return {name: [each[name] for each in by_seed if name in each] for name in by_seed[0]}


def _steady(by_seed: BySeed) -> dict[str, dict[str, Tail]]:
    """Mean tails by strategy and load."""
    return {
        name: {
            load: Tail(
                statistics.fmean(one.steady[load].p95 for one in seeds),
                statistics.fmean(one.steady[load].p99 for one in seeds),
            )
            for load in STEADY_LOADS
        }
        for name, seeds in _of_strategy(by_seed).items()
    }


Steady = Mapping[str, Mapping[str, Tail]]
"""Tails by strategy and steady load."""


def _steady_table(steady: Steady) -> Table:
    rows = tuple(
        (load, *(f"{tails[load].p95:.1f} / {tails[load].p99:.1f}" for tails in steady.values()))
        for load in STEADY_LOADS
    )
    return Table("p95 / p99 in S", ("scenario", *steady), rows)


def _capacity_table(by_seed: BySeed) -> Table:
    rows = tuple(
        (
            name,
            statistics.fmean(one.half_slow for one in seeds),
            statistics.fmean(one.equal for one in seeds),
        )
        for name, seeds in _of_strategy(by_seed).items()
    )
    title = "Largest share of capacity with p99 ≤ 12 S (16 instances, 4 slots)"
    return Table(title, ("strategy", "half slow", "equal"), rows)


def _trouble_table(by_seed: BySeed) -> Table:
    title = (
        "Trouble: p99 ratio of a slow pair, recovery in s (120: never), share of a fast-failing "
        "instance, most in flight at a newcomer, worst share without reports, p99 ratio of three "
        "routers to one"
    )
    columns = ("slow pair", "recovery", "fast fail", "cold join", "stale", "three routers")
    rows = tuple(
        (
            name,
            statistics.fmean(one.slow_pair for one in seeds),
            max(one.recovery_s for one in seeds),
            statistics.fmean(one.fast_fail for one in seeds),
            max(one.cold_join for one in seeds),
            max(one.stale for one in seeds),
            statistics.fmean(one.three_routers for one in seeds),
        )
        for name, seeds in _of_strategy(by_seed).items()
    )
    return Table(title, ("strategy", *columns), rows)


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
