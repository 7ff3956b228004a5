"""Static thresholds to compare detectors with.

One rule has a single setting for all streams; another is chosen for each stream with its labels.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from penstock.bench.telemetry.nab import FileScore, Stream, score_file

MIN_GAP = 100
"""Rows between two alerts, as the detector keeps."""
LEVELS = 120
"""Levels tried, from one that a value in ten thousand exceeds to one that most exceed."""
TUNING_LEVELS = 61

Array = NDArray[np.float64]
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


def alerts_above(distances: Sequence[float] | Array, level: float, first: int) -> list[int]:
    """Rows from `first` on with a distance above the level, no two within the gap."""
    rows = np.flatnonzero(np.asarray(distances[first:]) > level) + first
    alerts: list[int] = []
    position = 0
    while position < len(rows):
        alerts.append(int(rows[position]))
        position = int(np.searchsorted(rows, alerts[-1] + MIN_GAP, side="right"))
    return alerts


def counts_by_level(streams: Sequence[Stream], rule: Rule) -> Array:
    """Windows hit and false alerts of each stream at each level, from the highest level down: an
    array of streams x LEVELS x 2.
    """
    distances = [np.array(rule(stream)) for stream in streams]
    pooled = np.sort(np.concatenate(distances))
    counts = np.zeros((len(streams), LEVELS, 2))
    for number in range(LEVELS):
        share = 1.0 - 10.0 ** (-4.0 + 3.8 * number / (LEVELS - 1))
        level = float(pooled[int(share * (len(pooled) - 1))])
        for place, (stream, row) in enumerate(zip(streams, distances, strict=True)):
            score = score_file(stream, alerts_above(row, level, stream.probation))
            counts[place, number] = score.windows_hit, score.false_alerts
    return counts


def false_alerts_at_recall(counts: Array, windows_hit: int) -> int:
    """The false alerts of the highest level that hits as many windows, or of the lowest level.

    Args:
        counts: windows hit and false alerts of all streams together, by level.
        windows_hit: how many it has to hit.
    """
    enough = np.flatnonzero(counts[:, 0] >= windows_hit)
    return int(counts[enough[0] if len(enough) else -1, 1])


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
