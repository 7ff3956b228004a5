"""Figures of the streams with the shipped constants, with their intervals over intents; of the
worst window over shuffles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from penstock.bench.harness.data_sets import BANKING77, CLINC150
from penstock.bench.harness.intervals import bootstrap
from penstock.bench.harness.parts import Part
from penstock.bench.harness.report import Number, Table
from penstock.bench.semantic_cache.data import Corpus
from penstock.bench.semantic_cache.intents import (
    Intent,
    constant_thresholds,
    errors_per_request,
    first_hits,
    gain_figures,
    intents_of,
    stream_figures,
    stream_intervals,
)
from penstock.bench.semantic_cache.jobs import LOOSE, STRICT
from penstock.bench.semantic_cache.stream import Job, StreamResult

V = TypeVar("V")
Streams = Mapping[Job, StreamResult]
DRAWS = 1_000


def streamed_figures(corpora: Mapping[str, Corpus], streams: Streams) -> Part:
    """Figures of both corpora, and the constant thresholds on two shuffles of Banking77."""
    of_banking, of_clinc = (of_corpus(streams, name) for name in (BANKING77, CLINC150))
    compared = sorted({job.seed for job in of_banking})[:2]
    banking = intents_of(corpora[BANKING77], of_banking, compared)
    clinc = intents_of(corpora[CLINC150], of_clinc)
    shuffles = _shuffles(of_banking)
    figures = {
        **_banking_figures(banking),
        **_worst_windows(shuffles),
        **prefixed("clinc_", stream_figures(clinc)),
    }
    intervals = {
        **bootstrap(banking, _banking_figures, "intents", DRAWS),
        **stream_intervals(banking, DRAWS),
        **bootstrap(shuffles, _worst_windows, "shuffles"),
        **prefixed("clinc_", stream_intervals(clinc, DRAWS)),
    }
    tables = (_stream_table(streams), constant_thresholds(banking))
    return Part(figures, tables=tables, intervals=intervals)


def of_corpus(streams: Streams, name: str) -> dict[Job, StreamResult]:
    """The streams of one corpus."""
    return {job: result for job, result in streams.items() if job.corpus == name}


def prefixed(prefix: str, named: Mapping[str, V]) -> dict[str, V]:
    """Figures or intervals of other requests than all of Banking77's, under names of their own."""
    return {f"{prefix}{name.replace('hit_', '')}": value for name, value in named.items()}


def _banking_figures(intents: Sequence[Intent]) -> dict[str, float]:
    loose, strict = (Job(BANKING77, bound, 0).variant for bound in (LOOSE, STRICT))
    return {
        **stream_figures(intents),
        **gain_figures(intents, loose),
        "first_1000_hits": first_hits(intents, loose),
        f"errors_per_request_{loose}": errors_per_request(intents, loose),
        f"errors_per_request_{strict}": errors_per_request(intents, strict),
    }


def _shuffles(streams: Streams) -> list[dict[float, StreamResult]]:
    """The plain streams of each shuffle, by bound."""
    found: dict[int, dict[float, StreamResult]] = {}
    for job, result in streams.items():
        if not job.zipf and not job.judge_errors:
            found.setdefault(job.seed, {})[job.bound] = result
    return list(found.values())


def _worst_windows(shuffles: Sequence[Mapping[float, StreamResult]]) -> dict[str, float]:
    """The worst window of all shuffles, at each bound."""
    return {
        f"worst_window_error_ratio_{round(bound * 100):02d}": max(
            by_bound[bound].worst_error_ratio(bound) for by_bound in shuffles
        )
        for bound in shuffles[0]
    }


def _stream_table(streams: Streams) -> Table:
    columns = (
        "data",
        "bound",
        "repeated (Zipf)",
        "wrong labels",
        "shuffle",
        "cut",
        "precision",
        "hits in the first 1,000",
        "worst window ÷ bound",
    )
    rows: tuple[tuple[str | Number, ...], ...] = tuple(
        (
            job.corpus,
            job.bound,
            job.zipf,
            job.judge_errors,
            job.seed,
            result.cut,
            result.precision,
            result.early_hit_share(),
            result.worst_error_ratio(job.bound),
        )
        for job, result in streams.items()
    )
    return Table("Streams", columns, rows)
