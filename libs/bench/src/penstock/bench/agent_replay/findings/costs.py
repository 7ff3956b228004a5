"""What arms cost and how long they took, with intervals over clusters of runs. Pure."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from penstock.bench.agent_replay.players.plays import Play, Workload
from penstock.bench.agent_replay.provider.prefix_books import PriceSheet
from penstock.bench.harness.intervals import Interval, bootstrap

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
Positions = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
DRAWS = 1_000
FIGURE = "figure"


class Estimate(NamedTuple):
    """A figure and its 95 % interval; None where there are too few clusters for one."""

    value: float
    interval: Interval | None


def cost_microusd(play: Play, sheet: PriceSheet) -> float:
    """What the provider charges for a play."""
    return sum(sheet.microusd(note.tokens) for note in play.noted)


def cost_cut(pairs: Sequence[tuple[Play, Play]], sheet: PriceSheet) -> Estimate:
    """The share of the cost that the second plays save of the first.

    Runs of one cluster are drawn together, with all workloads in which they were played.
    """
    before: dict[str, float] = defaultdict(float)
    after: dict[str, float] = defaultdict(float)
    for one, other in pairs:
        for play, costs in ((one, before), (other, after)):
            for cluster, cost in costs_by_cluster(play, sheet).items():
                costs[cluster] += cost
    names = sorted(before.keys() | after.keys())
    first, second = (
        np.array([costs.get(name, 0.0) for name in names]) for costs in (before, after)
    )
    return estimate(len(names), lambda at: float(1 - second[at].sum() / first[at].sum()))


def calls_saved(play: Play, beyond: Mapping[str, int] | None = None) -> Estimate:
    """The share of calls that the provider was not asked; of those that another client would have
    to send, by cluster, where `beyond` says so.
    """
    asked, sent = _counts(play), _sent(play)
    other = sent if beyond is None else beyond
    names = sorted(sent)
    fewer = np.array([other.get(name, 0) - asked.get(name, 0) for name in names])
    calls = np.array([sent[name] for name in names])
    return estimate(len(names), lambda at: float(fewer[at].sum() / calls[at].sum()))


def latency_cut(before: Play, after: Play, middle: Callable[[Floats], float]) -> Estimate:
    """The share by which the middle (median or mean) of the latencies is lower in a second play."""
    clusters = clusters_of(before.workload)
    first, second = (_latencies(play, clusters) for play in (before, after))
    names = sorted(first.keys() & second.keys())

    def cut(at: Iterable[int]) -> float:
        drawn = [names[place] for place in at]
        ends = (
            middle(np.concatenate([times[name] for name in drawn])) for times in (second, first)
        )
        return float(1 - next(ends) / next(ends))

    return estimate(len(names), cut)


class TimedCall(NamedTuple):
    """What a call took at the provider, and how much longer at its caller."""

    cluster: str
    took_ms: float
    added_ms: float


def timed_calls(play: Play) -> list[TimedCall]:
    """The calls that reached the provider."""
    clusters = clusters_of(play.workload)
    took = {(note.run, note.call): note.took_ms for note in play.noted}
    return [
        TimedCall(clusters[each.run], took_ms, each.latency_ms - took_ms)
        for each in play.answered
        if (took_ms := took.get((each.run, each.call))) is not None
    ]


def added_share(play: Play) -> Estimate:
    """What calls take longer than at the provider, as a share of what they take there; medians."""
    by_cluster: dict[str, list[TimedCall]] = defaultdict(list)
    for call in timed_calls(play):
        by_cluster[call.cluster].append(call)
    clusters = list(by_cluster.values())

    def share(at: Iterable[int]) -> float:
        calls = [call for place in at for call in clusters[place]]
        took_ms = statistics.median(call.took_ms for call in calls)
        return statistics.median(call.added_ms for call in calls) / took_ms

    return estimate(len(clusters), share)


def median(values: Floats) -> float:
    """The median."""
    return float(np.median(values))


def mean(values: Floats) -> float:
    """The mean."""
    return float(np.mean(values))


def mean_latency_ms(play: Play) -> float:
    """The mean latency of a play's calls."""
    return statistics.mean(each.latency_ms for each in play.answered)


def clusters_of(workload: Workload) -> Mapping[str, str]:
    """The cluster of each run, by name."""
    return {run.name: run.cluster for run in workload.runs}


def estimate(clusters: int, statistic: Callable[[Positions], float]) -> Estimate:
    """A figure of so many clusters by their positions, and its interval."""

    def of_drawn(places: Sequence[int]) -> Mapping[str, float]:
        return {FIGURE: statistic(np.array(places))}

    intervals = bootstrap(range(clusters), of_drawn, "clusters of runs", DRAWS)
    return Estimate(statistic(np.arange(clusters)), intervals.get(FIGURE))


def costs_by_cluster(play: Play, sheet: PriceSheet) -> dict[str, float]:
    """What the provider charges for the runs of each cluster."""
    clusters = clusters_of(play.workload)
    costs: dict[str, float] = defaultdict(float)
    for note in play.noted:
        costs[clusters[note.run]] += sheet.microusd(note.tokens)
    return costs


def _counts(play: Play) -> dict[str, int]:
    """Requests that reached the provider, by cluster."""
    clusters = clusters_of(play.workload)
    counts: dict[str, int] = defaultdict(int)
    for note in play.noted:
        counts[clusters[note.run]] += 1
    return counts


def _sent(play: Play) -> dict[str, int]:
    """Calls of the clients, by cluster."""
    clusters = clusters_of(play.workload)
    counts: dict[str, int] = defaultdict(int)
    for each in play.answered:
        counts[clusters[each.run]] += 1
    return counts


def _latencies(play: Play, clusters: Mapping[str, str]) -> dict[str, Floats]:
    by_cluster: dict[str, list[float]] = defaultdict(list)
    for each in play.answered:
        by_cluster[clusters[each.run]].append(each.latency_ms)
    return {name: np.array(times) for name, times in by_cluster.items()}
