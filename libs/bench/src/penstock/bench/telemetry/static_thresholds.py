"""Static thresholds to compare with: one setting for all streams, and one for each stream chosen
with the labels in hand.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from penstock.bench.telemetry.nab import Outcome, Stream, judge

GAP = 100
"""Samples between two alerts, as the detector keeps."""

LEVELS = 120
"""Levels tried, from that which one value in ten thousand passes to that which most pass."""

Rule = Callable[[Stream], list[float]]


def z_distance(stream: Stream) -> list[float]:
    """Distance from the mean of the probation, in its standard deviations."""
    warm = stream.values[: stream.probation]
    mean, deviation = statistics.fmean(warm), statistics.pstdev(warm) or 1e-9
    return [abs(value - mean) / deviation for value in stream.values]


def range_distance(stream: Stream) -> list[float]:
    """Distance outside the range of the probation, as a share of it; negative inside."""
    warm = stream.values[: stream.probation]
    low, high = min(warm), max(warm)
    width = (high - low) or 1e-9
    return [max(low - value, value - high) / width for value in stream.values]


def alerts(distances: Sequence[float], level: float, first: int) -> list[int]:
    """Rows at which a distance passes the level, no two within the gap."""
    found: list[int] = []
    for row in range(first, len(distances)):
        if distances[row] > level and (not found or row - found[-1] > GAP):
            found.append(row)
    return found


def one_setting(streams: Sequence[Stream], rule: Rule, wanted: Sequence[int]) -> list[int]:
    """For each number of windows wanted, the false alerts of the highest level that hits as many;
    of the lowest when none does.
    """
    distances = [(stream, rule(stream)) for stream in streams]
    pooled = sorted(value for _, row in distances for value in row)
    found: list[int] = []
    for number in range(LEVELS):
        share = 1.0 - 10.0 ** (-4.0 + 3.8 * number / (LEVELS - 1))
        level = pooled[int(share * (len(pooled) - 1))]
        outcomes = [
            judge(stream, alerts(row, level, stream.probation)) for stream, row in distances
        ]
        hit, false = (
            sum(getattr(outcome, name) for outcome in outcomes) for name in ("hit", "false")
        )
        while len(found) < len(wanted) and hit >= wanted[len(found)]:
            found.append(false)
        if len(found) == len(wanted):
            return found
    return found + [false] * (len(wanted) - len(found))


def label_tuned(streams: Sequence[Stream]) -> list[Outcome]:
    """For each stream the level that scores best with its own labels: an answer seen beforehand,
    for honesty.
    """
    found = []
    for stream in streams:
        row = z_distance(stream)
        levels = sorted(set(row[stream.probation :]))
        tried = [levels[int(n / 60 * (len(levels) - 1))] for n in range(61)] + [levels[-1] + 1.0]
        outcomes = [judge(stream, alerts(row, level, stream.probation)) for level in tried]
        found.append(max(outcomes, key=lambda outcome: outcome.raw))
    return found
