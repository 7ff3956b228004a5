"""Static thresholds to compare detectors with.

One rule has a single setting for all streams; another is chosen for each stream with its labels.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from penstock.bench.telemetry.nab import FileScore, Stream, score_file

MIN_GAP = 100
"""Rows between two alerts, as the detector keeps."""
LEVELS = 120
"""Levels tried, from one that a value in ten thousand exceeds to one that most exceed."""
TUNING_LEVELS = 61

Rule = Callable[[Stream], list[float]]
"""The distance of each row from the stream's first rows."""


def z_distance(stream: Stream) -> list[float]:
    """Distance from the mean of the probation, in its standard deviations."""
    first = stream.values[: stream.probation]
    mean = statistics.fmean(first)
    deviation = statistics.pstdev(first) or 1e-9
    return [abs(value - mean) / deviation for value in stream.values]


def range_distance(stream: Stream) -> list[float]:
    """Distance outside the range of the probation, as a share of it; negative inside."""
    first = stream.values[: stream.probation]
    low = min(first)
    high = max(first)
    width = (high - low) or 1e-9
    return [max(low - value, value - high) / width for value in stream.values]


def alerts_above(distances: Sequence[float], level: float, first: int) -> list[int]:
    """Rows from `first` on with a distance above the level, no two within the gap."""
    alerts: list[int] = []
    for row in range(first, len(distances)):
        if distances[row] > level and (not alerts or row - alerts[-1] > MIN_GAP):
            alerts.append(row)
    return alerts


def false_alerts_at_recall(
    streams: Sequence[Stream], rule: Rule, windows_hit: Sequence[int]
) -> list[int]:
    """For each number of windows hit, in rising order, the fewest false alerts of one setting.

    It is that of the highest level which hits as many windows, or of the lowest level tried.
    """
    distances = [(stream, rule(stream)) for stream in streams]
    pooled = sorted(value for _, row in distances for value in row)
    found: list[int] = []
    false_alerts = 0
    for number in range(LEVELS):
        share = 1.0 - 10.0 ** (-4.0 + 3.8 * number / (LEVELS - 1))
        level = pooled[int(share * (len(pooled) - 1))]
        scores = [
            score_file(stream, alerts_above(row, level, stream.probation))
            for stream, row in distances
        ]
        hit = sum(score.windows_hit for score in scores)
        false_alerts = sum(score.false_alerts for score in scores)
        while len(found) < len(windows_hit) and hit >= windows_hit[len(found)]:
            found.append(false_alerts)
        if len(found) == len(windows_hit):
            return found
    return found + [false_alerts] * (len(windows_hit) - len(found))


def tuned_with_labels(streams: Sequence[Stream]) -> list[FileScore]:
    """For each stream the best score of any level, chosen by the stream's own labels.

    No real threshold can be chosen so; it shows what the best one could reach.
    """
    best = []
    for stream in streams:
        distances = z_distance(stream)
        levels = sorted(set(distances[stream.probation :]))
        tried = [
            levels[int(number / (TUNING_LEVELS - 1) * (len(levels) - 1))]
            for number in range(TUNING_LEVELS)
        ]
        tried.append(levels[-1] + 1.0)
        scores = [
            score_file(stream, alerts_above(distances, level, stream.probation)) for level in tried
        ]
        best.append(max(scores, key=lambda score: score.raw))
    return best
