"""Reads demand traces from CSV files, and says which line is wrong."""

from __future__ import annotations

import csv
import datetime
import itertools
import math
from dataclasses import dataclass
from pathlib import Path

from penstock.scaler.forecast.features import Sample

MIN_STEPS = 3
MAX_UNIX_S = 1e11
"""The year 5138. A larger number is taken for milliseconds and refused."""
MAX_BINS = 1_000_000
MAX_SHOWN = 80
Line = tuple[int, list[str]]
"""A line's number in the file, and its cells."""


class BadTrace(Exception):
    """The trace cannot be read. The text names the line."""


@dataclass(frozen=True)
class Columns:
    """Which columns of the file to read.

    Args:
        time, work: names in the head; empty for the first and the second column.
        bin_s: add up lines within so many seconds; 0 takes each line as an interval.
    """

    time: str = ""
    work: str = ""
    bin_s: float = 0.0


@dataclass(frozen=True)
class _Places:
    """Where time, work and backlog are in a line; backlog is None where the file has none."""

    time: int = 0
    work: int = 1
    backlog: int | None = 2


def read_trace(path: Path, columns: Columns | None = None) -> tuple[list[Sample], float]:
    """Return the samples of a CSV and the seconds between them.

    Columns are the time (Unix seconds or ISO 8601), the work, and optionally the backlog.

    Raises:
        BadTrace: the file is missing or too short, has no such column, a line is not a time and a
            number, or times do not go up.
    """
    columns = columns or Columns()
    lines = _lines(path)
    places = _Places()
    if lines and not _is_data(lines[0][1], columns):
        head = lines.pop(0)[1]
        places = _places([name.strip() for name in head], columns)
    elif columns.time or columns.work:
        raise BadTrace("line 1: columns are given by name, but the file has no head")
    samples = [_sample(line, places) for line in lines]
    if columns.bin_s:
        samples = _binned(samples, columns.bin_s)
    else:
        _check_order(lines, samples)
    if len(samples) < MIN_STEPS:
        raise BadTrace(
            f"{path}: needs at least {MIN_STEPS} lines of data, or intervals with --bin-s"
        )
    steps = sorted(later.start_s - sooner.start_s for sooner, later in itertools.pairwise(samples))
    return samples, columns.bin_s or steps[len(steps) // 2]


def _lines(path: Path) -> list[Line]:
    """The lines that are not empty."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            return [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadTrace(f"{path}: cannot be read ({error})") from None


def _is_data(cells: list[str], columns: Columns) -> bool:
    """Whether the first line is data and not a head."""
    try:
        _unix_s(cells[0])
    except ValueError:
        return False
    return not columns.time


def _places(head: list[str], columns: Columns) -> _Places:
    if len(head) < 2:
        raise BadTrace(
            f"line 1: needs at least two columns separated by commas, got {','.join(head)!r}"
        )
    for option, name in (("--time", columns.time), ("--work", columns.work)):
        if name and name not in head:
            raise BadTrace(f"{option}: there is no column {name!r}; the head has {', '.join(head)}")
    return _Places(
        time=head.index(columns.time) if columns.time else 0,
        work=head.index(columns.work) if columns.work else 1,
        backlog=None if columns.work or columns.time else 2,
    )


def _sample(line: Line, places: _Places) -> Sample:
    number, cells = line
    try:
        start_s, work = _unix_s(cells[places.time]), float(cells[places.work])
        backlog = _backlog(cells, places.backlog)
    except (IndexError, ValueError):
        shown = ",".join(cells)[:MAX_SHOWN]
        raise BadTrace(f"line {number}: needs a time and a number, got {shown!r}") from None
    if not (math.isfinite(work) and work >= 0 and math.isfinite(backlog) and backlog >= 0):
        raise BadTrace(f"line {number}: work and backlog must be finite and not negative")
    if not 0 <= start_s < MAX_UNIX_S:
        raise BadTrace(
            f"line {number}: the time must be Unix seconds (not milliseconds) or an ISO 8601 "
            f"time, got {cells[places.time]!r}"
        )
    return Sample(start_s, work, backlog)


def _backlog(cells: list[str], place: int | None) -> float:
    if place is None or place >= len(cells) or not cells[place].strip():
        return 0.0
    return float(cells[place])


def _unix_s(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        pass
    text = text.strip()
    if "." in text:
        text = text[:26]  # datetime knows microseconds and no finer fractions
    moment = datetime.datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()


def _check_order(lines: list[Line], samples: list[Sample]) -> None:
    for (number, _), (before, sample) in zip(lines[1:], itertools.pairwise(samples), strict=True):
        if sample.start_s <= before.start_s:
            raise BadTrace(
                f"line {number}: its time is not after that of the line before; for lines that "
                "are to be added up see --bin-s"
            )


def _binned(samples: list[Sample], bin_s: float) -> list[Sample]:
    """The work added up and the last backlog by interval; 0 in intervals without a line."""
    if not samples:
        return []
    times_s = [sample.start_s for sample in samples]
    first = min(times_s) // bin_s
    count = int(max(times_s) // bin_s - first) + 1
    if count > MAX_BINS:
        raise BadTrace(f"--bin-s: makes {count} intervals, at most {MAX_BINS} are replayed")
    work, backlog = [0.0] * count, [0.0] * count
    for sample in sorted(samples, key=lambda sample: sample.start_s):
        index = int(sample.start_s // bin_s - first)
        work[index] += sample.work
        backlog[index] = sample.backlog
    return [Sample((first + index) * bin_s, work[index], backlog[index]) for index in range(count)]
