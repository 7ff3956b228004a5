"""Figures of the streams with their intervals over intents; of the worst window over shuffles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from penstock.bench.harness.data_sets import BANKING77, CLINC150
from penstock.bench.harness.intervals import bootstrap
from penstock.bench.harness.parts import Part
from penstock.bench.harness.report import Number, Plot, Table
from penstock.bench.semantic_cache.data import Corpus
from penstock.bench.semantic_cache.intents import (
    Intent,
    constant_thresholds,
    errors_per_request,
    first_hits,
    gain_figures,
    intents_of,
    stream_figures,
    variant_of,
)
from penstock.bench.semantic_cache.jobs import CHOSEN_ON, HELD_OUT, JUDGE_ERRORS, LOOSE, STRICT
from penstock.bench.semantic_cache.stream import Job, StreamResult

V = TypeVar("V")
Streams = Mapping[Job, StreamResult]
PREFIXES = {CLINC150: "clinc_", CHOSEN_ON: "chosen_on_", HELD_OUT: "held_out_"}
"""Before the names of figures, by corpus; Banking77's have none."""
DRAWS = 1_000


def streamed_figures(corpora: Mapping[str, Corpus], streams: Streams) -> Part:
    """Figures of all streams, and the constant thresholds on two shuffles of Banking77."""
    by_corpus = {
        name: {job: result for job, result in streams.items() if job.corpus == name}
        for name in dict.fromkeys(job.corpus for job in streams)
    }
    compared = sorted({job.seed for job in by_corpus[BANKING77]})[:2]
    banking = intents_of(corpora[BANKING77], by_corpus[BANKING77], compared)
    shuffles = _shuffles(by_corpus[BANKING77])
    figures = {**_banking_figures(banking), **_worst_windows(shuffles)}
    intervals = {
        **bootstrap(banking, _banking_figures, "intents", DRAWS),
        **bootstrap(shuffles, _worst_windows, "shuffles"),
    }
    for name, prefix in PREFIXES.items():
        if name in by_corpus:
            intents = intents_of(corpora[name], by_corpus[name])
            figures |= _prefixed(prefix, stream_figures(intents))
            found = bootstrap(intents, stream_figures, "intents", DRAWS)
            intervals |= _prefixed(prefix, found)
    tables = (_stream_table(streams), constant_thresholds(banking))
    return Part(figures, tables=tables, intervals=intervals)


def _prefixed(prefix: str, named: Mapping[str, V]) -> dict[str, V]:
    return {f"{prefix}{name.replace('hit_', '')}": value for name, value in named.items()}


def _banking_figures(intents: Sequence[Intent]) -> dict[str, float]:
    loose, strict = (variant_of(Job(BANKING77, bound, 0)) for bound in (LOOSE, STRICT))
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


def noise_plot(figures: Mapping[str, Number]) -> Plot:
    """Cut and precision at 0.03 over the share of wrong labels."""
    shares = [0.0, *JUDGE_ERRORS]
    variants = [variant_of(Job("", LOOSE, 0, judge_errors=share)) for share in shares]
    percent = [100 * share for share in shares]
    series = {
        f"{label} ({corpus})": (percent, [float(figures[name + each]) for each in variants])
        for corpus, label, name in (
            ("Banking77", "calls saved", "call_cut_"),
            ("Banking77", "hits that are right", "hit_precision_"),
            ("CLINC150", "calls saved", "clinc_call_cut_"),
            ("CLINC150", "hits that are right", "clinc_precision_"),
        )
    }
    title = "Wrong labels cost hits, not precision"
    return Plot(title, "labels that are wrong, %", "share", series)
