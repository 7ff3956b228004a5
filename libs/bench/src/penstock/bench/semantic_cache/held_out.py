"""Figures with constants chosen anew: each half of Banking77's intents against the other.

`chosen_on_…` are both halves, each with the constants that were chosen on itself; `held_out_…` the
same intents, each half with the constants chosen on the other (cross-fitting); `left_out_…` is
CLINC150 with the constants chosen on both halves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, fields

from penstock.bench.harness.intervals import Interval
from penstock.bench.harness.parts import Part
from penstock.bench.harness.report import Number, Table
from penstock.bench.semantic_cache.constants import SHIPPED, Constants
from penstock.bench.semantic_cache.data import Corpus
from penstock.bench.semantic_cache.intents import (
    Intent,
    intents_of,
    stream_figures,
    stream_intervals,
)
from penstock.bench.semantic_cache.stream import Job, StreamResult
from penstock.bench.semantic_cache.streamed import DRAWS, of_corpus, prefixed

Streams = Mapping[Job, StreamResult]
COLUMNS = ("constants", "data", "bound", "shuffle", "cut", "precision")
SAID = {
    "chosen_on_": "chosen on this half",
    "held_out_": "chosen on the other half",
    "left_out_": "chosen on Banking77",
}
"""Where constants were chosen, by how the names of figures begin."""


def held_out_figures(
    corpora: Mapping[str, Corpus], jobs: Mapping[str, Sequence[Job]], streams: Streams
) -> Part:
    """Figures with constants chosen anew, which these are, and the same halves with the shipped
    ones.

    Args:
        corpora: by name.
        jobs: of constants chosen anew, by how the names of their figures begin.
        streams: of these jobs, and of the halves with the shipped constants.
    """
    figures: dict[str, Number] = {}
    intervals: dict[str, Interval] = {}
    for prefix, each in jobs.items():
        intents = _intents(corpora, {job: streams[job] for job in each})
        figures |= prefixed(prefix, stream_figures(intents))
        intervals |= prefixed(prefix, stream_intervals(intents, DRAWS))
    return Part(figures, tables=(_chosen(jobs), _table(jobs, streams)), intervals=intervals)


def _intents(corpora: Mapping[str, Corpus], streams: Streams) -> list[Intent]:
    """The intents of all corpora of these streams, which share none."""
    names = dict.fromkeys(job.corpus for job in streams)
    return [
        intent for name in names for intent in intents_of(corpora[name], of_corpus(streams, name))
    ]


def _chosen(jobs: Mapping[str, Sequence[Job]]) -> Table:
    """Which constants were chosen, beside the shipped ones."""
    chosen = {
        "all, as shipped": SHIPPED,
        **{job.corpus: job.constants for job in jobs["chosen_on_"]},
        "both halves": jobs["left_out_"][0].constants,
    }
    rows = tuple((name, *astuple(constants)) for name, constants in chosen.items())
    columns = ("chosen on", *(field.name.upper() for field in fields(Constants)))
    return Table("Constants", columns, rows)


def _table(jobs: Mapping[str, Sequence[Job]], streams: Streams) -> Table:
    rows: list[tuple[str | Number, ...]] = [
        _row(SAID[prefix], job, streams[job]) for prefix, each in jobs.items() for job in each
    ]
    shipped = dict.fromkeys(Job(job.corpus, job.bound, job.seed) for job in jobs["held_out_"])
    rows += [_row("shipped", job, streams[job]) for job in shipped]
    return Table("Constants chosen anew, and as shipped", COLUMNS, tuple(rows))


def _row(said: str, job: Job, result: StreamResult) -> tuple[str | Number, ...]:
    return (said, job.corpus, job.bound, job.seed, result.cut, result.precision)
