"""The Numenta Anomaly Benchmark: its files, and its scoring written from the paper (Lavin, Ahmad
2015). No detector lives here.
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
"""What the sigmoid is worth at a window's left edge; scores are taken relative to it."""


@dataclass(frozen=True)
class Profile:
    """Weights: of a false alert, and of a missed window."""

    false_alert: float
    miss: float


STANDARD = Profile(0.11, 1.0)
LOW_FALSE = Profile(0.22, 1.0)
LOW_MISSED = Profile(0.11, 2.0)


@dataclass(frozen=True)
class Stream:
    """One file: its values and the rows, first and last, of its labelled windows."""

    name: str
    values: tuple[float, ...]
    windows: tuple[tuple[int, int], ...]

    @property
    def probation(self) -> int:
        """Rows at the start in which nothing is scored."""
        return probation(len(self.values))


def probation(rows: int) -> int:
    """15 % of the rows, at most 750."""
    return math.floor(0.15 * min(rows, 5000))


@dataclass(frozen=True)
class Outcome:
    """Of one file: the sum of its rewards and penalties, windows, windows hit, false alerts, rows
    scored.
    """

    raw: float
    windows: int
    hit: int
    false: int
    rows: int


def judge(stream: Stream, alerts: Iterable[int], profile: Profile = STANDARD) -> Outcome:
    """Score one file's alerts (row numbers) under a profile."""
    best: dict[int, float] = {}
    raw, false = 0.0, 0
    for row in alerts:
        if row < stream.probation:
            continue
        number = next(
            (at for at, (first, last) in enumerate(stream.windows) if first <= row <= last), None
        )
        if number is not None:
            first, last = stream.windows[number]
            place = -(last - row + 1) / (last - first + 1)
            best[number] = max(best.get(number, -1.0), _sigmoid(place) / EDGE)
        else:
            false += 1
            raw += profile.false_alert * _after(stream.windows, row)
    raw += sum(best.values()) - profile.miss * (len(stream.windows) - len(best))
    return Outcome(
        raw, len(stream.windows), len(best), false, len(stream.values) - stream.probation
    )


def _after(windows: Sequence[tuple[int, int]], row: int) -> float:
    """A false alert costs less soon after a window, and 1 elsewhere."""
    past = [window for window in windows if window[1] < row]
    if not past:
        return -1.0
    first, last = past[-1]
    distance = (row - last) / max(last - first, 1)
    return -1.0 if distance > 3.0 else _sigmoid(distance)


def _sigmoid(place: float) -> float:
    return 2.0 / (1.0 + math.exp(5.0 * place)) - 1.0


def total(outcomes: Sequence[Outcome], profile: Profile = STANDARD) -> float:
    """The benchmark's score: 0 for a detector that never speaks, 100 for one that hits each window
    at its first row.
    """
    windows = sum(outcome.windows for outcome in outcomes)
    raw = sum(outcome.raw for outcome in outcomes)
    return 100.0 * (raw + profile.miss * windows) / ((1.0 + profile.miss) * windows)


def streams(folder: Path) -> list[Stream]:
    """The files below a folder that have labels, in order of name."""
    labels = json.loads((folder / "combined_windows.json").read_text(encoding="utf-8"))
    return [
        _read(folder, name, labels[name]) for name in sorted(labels) if (folder / name).exists()
    ]


def _read(folder: Path, name: str, windows: Sequence[Sequence[str]]) -> Stream:
    with (folder / name).open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    times = [datetime.fromisoformat(row["timestamp"]) for row in rows]
    spans = [
        (datetime.fromisoformat(first), datetime.fromisoformat(last)) for first, last in windows
    ]
    found = tuple(
        (bisect_left(times, first), bisect_right(times, last) - 1) for first, last in spans
    )
    return Stream(name, tuple(float(row["value"]) for row in rows), found)


def generated(rng: random.Random, count: int = 12, rows: int = 4000) -> list[Stream]:
    """Streams with a daily course and noise; every second one has a shift, a spike or a silence in
    it.
    """
    made = []
    for number in range(count):
        noise, day = rng.uniform(0.5, 3.0), rng.uniform(0.0, 20.0)
        values = [
            50.0 + day * math.sin(row / 288 * math.tau) + rng.gauss(0.0, noise)
            for row in range(rows)
        ]
        windows: tuple[tuple[int, int], ...] = ()
        if number % 2:
            at = rng.randrange(rows // 2, rows - 500)
            shift = rng.choice((-1, 1)) * (2 * day + 8 * noise)
            for row in range(at, at + rng.choice((1, 30, 150))):
                values[row] += shift
            windows = ((at - 100, at + 200),)
        made.append(Stream(f"generated/{number}", tuple(values), windows))
    return made
