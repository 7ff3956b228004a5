"""Demand traces as CSV: which columns, which times, and what is wrong with which line.

Reading only; nothing is decided here.
"""

from __future__ import annotations

import csv
import datetime
import itertools
import math
from dataclasses import dataclass
from pathlib import Path

from penstock.scaler.samples import Sample

LEAST_STEPS = 3
MOST_S = 1e11
"""Unix seconds of the year 5138: whoever writes more means milliseconds."""
MOST_BINS = 1_000_000


class BadTrace(Exception):
    """The trace cannot be read; the text names the line."""


@dataclass(frozen=True)
class Columns:
    """Where a trace holds what, by the names of its head; empty: time first, work second.

    `bin_s` adds up lines within so many seconds.
    """

    time: str = ""
    work: str = ""
    bin_s: float = 0.0


def read(path: Path, columns: Columns | None = None) -> tuple[list[Sample], float]:
    """Samples of a CSV and the seconds between them: time (Unix seconds or ISO 8601), work, backlog
    (third column, optional).

    Raises:
        BadTrace: the file is missing or too short, a column is, a line is not two numbers, or times
            do not go up.
    """
    columns = columns or Columns()
    rows = _rows(path)
    places = (0, 1, 2)
    if rows and not _is_data(rows[0][1], columns):
        places = _places([name.strip() for name in rows.pop(0)[1]], columns)
    elif columns.time or columns.work:
        raise BadTrace("line 1: columns are asked for by name, and the file has no head")
    samples = [_sample(row, number, places) for number, row in rows]
    if columns.bin_s:
        samples = _binned(samples, columns.bin_s)
    elif ends := [
        number for number, (one, two) in _pairs(rows, samples) if two.start_s <= one.start_s
    ]:
        raise BadTrace(
            f"line {ends[0]}: its time is not after that of the line before; for lines that "
            "are to be added up see --bin-s"
        )
    if len(samples) < LEAST_STEPS:
        raise BadTrace(
            f"{path}: needs at least {LEAST_STEPS} lines of data, or intervals with --bin-s"
        )
    steps = sorted(later.start_s - sooner.start_s for sooner, later in itertools.pairwise(samples))
    return samples, columns.bin_s or steps[len(steps) // 2]


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """Lines with something in them, and their numbers."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            return [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadTrace(f"{path}: cannot be read ({error})") from None


def _is_data(row: list[str], columns: Columns) -> bool:
    try:
        _unix_s(row[0])
        return not columns.time
    except ValueError:
        return False


def _places(head: list[str], columns: Columns) -> tuple[int, int, int]:
    if len(head) < 2:
        raise BadTrace(
            f"line 1: needs at least two columns separated by commas, got {','.join(head)!r}"
        )
    asked = {"--time": columns.time, "--work": columns.work}
    for option, name in asked.items():
        if name and name not in head:
            raise BadTrace(f"{option}: there is no column {name!r}; the head has {', '.join(head)}")
    time = head.index(columns.time) if columns.time else 0
    work = head.index(columns.work) if columns.work else 1
    return time, work, -1 if columns.work or columns.time else 2


def _sample(row: list[str], number: int, places: tuple[int, int, int]) -> Sample:
    try:
        start_s, work = _unix_s(row[places[0]]), float(row[places[1]])
        backlog = (
            float(row[places[2]]) if 0 <= places[2] < len(row) and row[places[2]].strip() else 0.0
        )
    except (IndexError, ValueError):
        raise BadTrace(
            f"line {number}: needs a time and a number, got {','.join(row)[:80]!r}"
        ) from None
    if not (math.isfinite(work) and work >= 0 and math.isfinite(backlog) and backlog >= 0):
        raise BadTrace(f"line {number}: work and backlog must be finite and not negative")
    if not 0 <= start_s < MOST_S:
        raise BadTrace(
            f"line {number}: the time must be Unix seconds (not milliseconds) or an ISO 8601 "
            f"time, got {row[places[0]]!r}"
        )
    return Sample(start_s, work, backlog)


def _unix_s(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        moment = datetime.datetime.fromisoformat(text.strip()[:26] if "." in text else text.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()


def _pairs(
    rows: list[tuple[int, list[str]]], samples: list[Sample]
) -> list[tuple[int, tuple[Sample, Sample]]]:
    return list(zip([number for number, _ in rows[1:]], itertools.pairwise(samples), strict=True))


def _binned(samples: list[Sample], bin_s: float) -> list[Sample]:
    """Work added up by interval, intervals without a line among them; backlog is the last one
    said.
    """
    if not samples:
        return []
    first = min(sample.start_s for sample in samples) // bin_s
    count = int(max(sample.start_s for sample in samples) // bin_s - first) + 1
    if count > MOST_BINS:
        raise BadTrace(f"--bin-s: makes {count} intervals, at most {MOST_BINS} are replayed")
    work, backlog = [0.0] * count, [0.0] * count
    for sample in sorted(samples, key=lambda one: one.start_s):
        place = int(sample.start_s // bin_s - first)
        work[place] += sample.work
        backlog[place] = sample.backlog
    return [
        Sample((first + place) * bin_s, *pair)
        for place, pair in enumerate(zip(work, backlog, strict=True))
    ]
