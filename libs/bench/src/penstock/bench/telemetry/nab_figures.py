"""The metric detector on NAB's files: scores, false alerts against static thresholds, and how far
they may be off. Files are the blocks of the intervals, for rows of one file depend on each other.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from penstock.bench.harness.intervals import bootstrap
from penstock.bench.harness.parts import Part
from penstock.bench.harness.report import Number, Table
from penstock.bench.telemetry import static_thresholds
from penstock.bench.telemetry.nab import (
    LOW_FALSE,
    LOW_MISSED,
    STANDARD,
    FileScore,
    Stream,
    benchmark_score,
    score_file,
)
from penstock.bench.telemetry.static_thresholds import Array
from penstock.telemetry.detection.novelty import ALERT_LEVEL_NATS, NoveltyStream

LEVELS = tuple(round(9.5 + 0.25 * number, 2) for number in range(17))
"""Alert levels, in nats, of which one is chosen for a group that is left out."""
STRICTER = range(1, 13)
"""Nats above the alert level, for the table of lower recalls."""
PROFILES = (STANDARD, LOW_FALSE, LOW_MISSED)


@dataclass(frozen=True)
class JudgedFile:
    """One file: its scores, and what static thresholds do to it.

    Attributes:
        scores: with the shipped alert level, under each of PROFILES.
        null: the score without any alert.
        left_out: with the level that is best on the other groups of files.
        static: windows hit and false alerts of the two static rules, rules x levels x 2.
        took_s: processor seconds of scoring all rows.
        rows: their number.
    """

    scores: tuple[FileScore, ...]
    null: FileScore
    left_out: FileScore
    static: Array
    took_s: float
    rows: int


def measure(streams: Sequence[Stream]) -> Part:
    """Figures, intervals and tables."""
    scored = [_scored(stream) for stream in streams]
    files = _judged(streams, scored)
    tables = (_by_group(streams, files), _static_table(streams, scored, files))
    intervals = bootstrap(files, figures, "files", 1_000)
    return Part(figures(files), {"nab_files": len(files)}, tables, intervals)


def figures(files: Sequence[JudgedFile]) -> dict[str, float]:
    """The figures over these files."""
    standard = [file.scores[0] for file in files]
    hit, false_alerts = _hit(standard), _false(standard)
    windows = sum(score.windows for score in standard)
    static = _static_false_alerts(files, hit)
    rows = 1000 / sum(score.rows_scored for score in standard)
    if not windows:
        return {"false_alerts_per_1000": false_alerts * rows}
    return {
        "nab_standard": benchmark_score(standard),
        "nab_low_fp": benchmark_score([file.scores[1] for file in files], LOW_FALSE),
        "nab_low_fn": benchmark_score([file.scores[2] for file in files], LOW_MISSED),
        "nab_left_group_out": benchmark_score([file.left_out for file in files]),
        "nab_null": benchmark_score([file.null for file in files]),
        "false_alerts_per_1000": false_alerts * rows,
        "windows_hit_share": hit / windows,
        "false_positive_cut_vs_threshold": 1 - false_alerts / max(1, static),
        "score_us": sum(file.took_s for file in files) / sum(file.rows for file in files) * 1e6,
    }


def _hit(scores: Sequence[FileScore]) -> int:
    return sum(score.windows_hit for score in scores)


def _false(scores: Sequence[FileScore]) -> int:
    return sum(score.false_alerts for score in scores)


def _static_false_alerts(files: Sequence[JudgedFile], windows_hit: int) -> int:
    """False alerts of the better of the two static rules that hits as many windows."""
    counts = np.sum([file.static for file in files], axis=0)
    return min(static_thresholds.false_alerts_at_recall(rule, windows_hit) for rule in counts)


@dataclass(frozen=True)
class Scored:
    """The score of each row, and the processor seconds that scoring took, deciding included."""

    scores: Sequence[float]
    took_s: float


def _scored(stream: Stream) -> Scored:
    detector, scores = NoveltyStream(), []
    began_s = time.process_time()
    for value in stream.values:
        score = detector.score(value)
        detector.should_alert(score)
        scores.append(score)
    return Scored(scores, time.process_time() - began_s)


def _alerts(scored: Scored, level_nats: float = ALERT_LEVEL_NATS) -> list[int]:
    """Rows of the alerts at a level."""
    detector = NoveltyStream()
    return [
        row for row, score in enumerate(scored.scores) if detector.should_alert(score, level_nats)
    ]


def _judged(streams: Sequence[Stream], scored: Sequence[Scored]) -> list[JudgedFile]:
    rules = (static_thresholds.z_distance, static_thresholds.range_distance)
    static = np.stack([static_thresholds.counts_by_level(streams, rule) for rule in rules], 1)
    left_out = _left_group_out(streams, scored)
    judged = []
    for place, (stream, found) in enumerate(zip(streams, scored, strict=True)):
        alerts = _alerts(found)
        judged.append(
            JudgedFile(
                tuple(score_file(stream, alerts, profile) for profile in PROFILES),
                score_file(stream, []),
                left_out[place],
                static[place],
                found.took_s,
                len(stream.values),
            )
        )
    return judged


def _left_group_out(streams: Sequence[Stream], scored: Sequence[Scored]) -> list[FileScore]:
    """Each file's score at the level that is best on the files of the other groups."""
    pairs = list(zip(streams, scored, strict=True))
    at_level = {
        level: [score_file(stream, _alerts(found, level)) for stream, found in pairs]
        for level in LEVELS
    }
    groups = [_group(stream) for stream in streams]
    best = {
        group: _best_level(at_level, [at for at, name in enumerate(groups) if name != group])
        for group in set(groups)
    }
    return [at_level[best[group]][place] for place, group in enumerate(groups)]


def _best_level(at_level: Mapping[float, Sequence[FileScore]], places: Sequence[int]) -> float:
    return max(LEVELS, key=lambda level: _score_of(at_level[level], places))


def _score_of(scores: Sequence[FileScore], places: Sequence[int]) -> float:
    """NAB's score over some files; 0 where none of them has a window."""
    chosen = [scores[place] for place in places]
    return benchmark_score(chosen) if any(score.windows for score in chosen) else 0.0


def _group(stream: Stream) -> str:
    return stream.name.partition("/")[0]


def _by_group(streams: Sequence[Stream], files: Sequence[JudgedFile]) -> Table:
    groups: dict[str, list[FileScore]] = {}
    for stream, file in zip(streams, files, strict=True):
        groups.setdefault(_group(stream), []).append(file.scores[0])
    rows = tuple(_group_row(name, scores) for name, scores in groups.items())
    columns = ("group", "files", "windows", "hit", "false alerts", "standard score")
    return Table("NAB by group", columns, rows)


def _group_row(name: str, scores: Sequence[FileScore]) -> tuple[str | Number, ...]:
    windows = sum(score.windows for score in scores)
    standard = round(benchmark_score(scores), 1) if windows else "-"
    return (name, len(scores), windows, _hit(scores), _false(scores), standard)


def _static_table(
    streams: Sequence[Stream], scored: Sequence[Scored], files: Sequence[JudgedFile]
) -> Table:
    """False alerts at the detector's recall, and at the lower ones of stricter levels."""
    standard = [file.scores[0] for file in files]
    ours = {_hit(standard): _false(standard)}
    for step in STRICTER:
        judged = [
            score_file(stream, _alerts(found, ALERT_LEVEL_NATS + step))
            for stream, found in zip(streams, scored, strict=True)
        ]
        ours.setdefault(_hit(judged), _false(judged))
    by_z, by_range = np.sum([file.static for file in files], axis=0)
    at_recall = static_thresholds.false_alerts_at_recall
    rows: list[tuple[str | Number, ...]] = [
        (hit, alerts, at_recall(by_z, hit), at_recall(by_range, hit), "-")
        for hit, alerts in sorted(ours.items())
        if hit
    ]
    tuned = static_thresholds.tuned_with_labels(streams)
    rows.append((_hit(tuned), "-", "-", "-", _false(tuned)))
    columns = (
        "windows hit",
        "novelty",
        "from the mean",
        "outside the range",
        "chosen for each file with its labels",
    )
    return Table("False alerts of static thresholds at equal recall", columns, tuple(rows))
