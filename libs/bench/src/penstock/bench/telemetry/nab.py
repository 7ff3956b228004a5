"""The Numenta Anomaly Benchmark (NAB): its files, and its scoring.

The scoring is written from the paper: Lavin and Ahmad, "Evaluating Real-time Anomaly Detection
Algorithms" (2015). A detector's alerts within a labelled window earn the more the earlier they are,
alerts elsewhere and missed windows cost. No detector stands here.
"""

from __future__ import annotations

import csv
import json
import math
import random
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

EDGE = 2.0 / (1.0 + math.exp(-5.0)) - 1.0
"""The sigmoid's value at a window's left edge; scores are relative to it."""
AFTERMATH_WINDOWS = 3.0
"""A false alert is cheaper up to so many window lengths after a window."""


@dataclass(frozen=True)
class Profile:
    """The weights of a false alert and of a missed window."""

    false_alert: float
    miss: float


STANDARD = Profile(0.11, 1.0)
LOW_FALSE = Profile(0.22, 1.0)
LOW_MISSED = Profile(0.11, 2.0)


@dataclass(frozen=True)
class Stream:
    """One file: its values, and the first and last row of each labelled window."""

    name: str
    values: tuple[float, ...]
    windows: tuple[tuple[int, int], ...]

    @property
    def probation(self) -> int:
        """Number of rows at the start that are not scored."""
        return probation(len(self.values))


def probation(rows: int) -> int:
    """15 % of the rows, at most 750."""
    return math.floor(0.15 * min(rows, 5000))


@dataclass(frozen=True)
class FileScore:
    """The score of one file.

    Attributes:
        raw: sum of rewards and penalties.
        windows: number of labelled windows.
        windows_hit: number of windows with an alert.
        false_alerts: number of alerts outside windows.
        rows_scored: number of rows after the probation.
    """

    raw: float
    windows: int
    windows_hit: int
    false_alerts: int
    rows_scored: int


def score_file(stream: Stream, alerts: Iterable[int], profile: Profile = STANDARD) -> FileScore:
    """Score one file's alerts, given as row numbers."""
    rewards: dict[int, float] = {}
    penalties = 0.0
    false_alerts = 0
    for row in alerts:
        if row < stream.probation:
            continue
        window = _window_at(stream, row)
        if window is None:
            false_alerts += 1
            penalties += profile.false_alert * _false_alert_value(stream.windows, row)
        else:
            reward = _reward(stream.windows[window], row)
            rewards[window] = max(rewards.get(window, -1.0), reward)
    missed = len(stream.windows) - len(rewards)
    raw = penalties + (sum(rewards.values()) - profile.miss * missed)
    rows_scored = len(stream.values) - stream.probation
    return FileScore(raw, len(stream.windows), len(rewards), false_alerts, rows_scored)


def _window_at(stream: Stream, row: int) -> int | None:
    matches = (
        number for number, (first, last) in enumerate(stream.windows) if first <= row <= last
    )
    return next(matches, None)


def _reward(window: tuple[int, int], row: int) -> float:
    """1 at the window's first row, less towards its last."""
    first, last = window
    position = -(last - row + 1) / (last - first + 1)
    return _sigmoid(position) / EDGE


def _false_alert_value(windows: Sequence[tuple[int, int]], row: int) -> float:
    """-1, or nearer to 0 soon after a window."""
    earlier = [window for window in windows if window[1] < row]
    if not earlier:
        return -1.0
    first, last = earlier[-1]
    distance = (row - last) / max(last - first, 1)
    return -1.0 if distance > AFTERMATH_WINDOWS else _sigmoid(distance)


def _sigmoid(position: float) -> float:
    return 2.0 / (1.0 + math.exp(5.0 * position)) - 1.0


def benchmark_score(scores: Sequence[FileScore], profile: Profile = STANDARD) -> float:
    """The score over files: 0 without any alert, 100 with each window hit at its first row."""
    windows = sum(score.windows for score in scores)
    raw = sum(score.raw for score in scores)
    return 100.0 * (raw + profile.miss * windows) / ((1.0 + profile.miss) * windows)


def read_streams(folder: Path) -> list[Stream]:
    """The labelled files below a folder, in order of name."""
    labels = json.loads((folder / "combined_windows.json").read_text(encoding="utf-8"))
    return [
        _read(folder, name, labels[name]) for name in sorted(labels) if (folder / name).exists()
    ]


def _read(folder: Path, name: str, windows: Sequence[Sequence[str]]) -> Stream:
    with (folder / name).open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    times = [datetime.fromisoformat(row["timestamp"]) for row in rows]
    bounds = [
        (datetime.fromisoformat(first), datetime.fromisoformat(last)) for first, last in windows
    ]
    row_windows = tuple(
        (bisect_left(times, first), bisect_right(times, last) - 1) for first, last in bounds
    )
    return Stream(name, tuple(float(row["value"]) for row in rows), row_windows)


def generated_streams(rng: random.Random, count: int = 12, rows: int = 4000) -> list[Stream]:
    """Streams with a daily cycle and noise; every second one has a labelled shift or spike."""
    return [_generated_stream(rng, number, rows) for number in range(count)]


def _generated_stream(rng: random.Random, number: int, rows: int) -> Stream:
    noise = rng.uniform(0.5, 3.0)
    amplitude = rng.uniform(0.0, 20.0)
    values = [
        50.0 + amplitude * math.sin(row / 288 * math.tau) + rng.gauss(0.0, noise)
        for row in range(rows)
    ]
    windows: tuple[tuple[int, int], ...] = ()
    if number % 2:
        at = rng.randrange(rows // 2, rows - 500)
        shift = rng.choice((-1, 1)) * (2 * amplitude + 8 * noise)
        for row in range(at, at + rng.choice((1, 30, 150))):
            values[row] += shift
        windows = ((at - 100, at + 200),)
    return Stream(f"generated/{number}", tuple(values), windows)
