"""Figures of the streams with their intervals over intents; of the worst window over shuffles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from penstock.bench.harness.data_sets import BANKING77
from penstock.bench.harness.intervals import bootstrap
from penstock.bench.harness.parts import Part
from penstock.bench.harness.report import Table
from penstock.bench.semantic_cache.data import CLINC150, Corpus
from penstock.bench.semantic_cache.intents import (
    Intent,
    Results,
    constant_thresholds,
    gain_figures,
    intents_of,
    stream_figures,
)
from penstock.bench.semantic_cache.stream import StreamResult


def streamed_figures(
    corpora: Mapping[str, Corpus], by_corpus: Mapping[str, Results], compared: Sequence[int]
) -> tuple[Part, Table]:
    """Figures of the streams over intents and shuffles, and the constant thresholds.

    Args:
        corpora: by name.
        by_corpus: results by the corpus's name.
        compared: shuffles of Banking77 on which constant thresholds are tried.
    """
    banking = intents_of(corpora[BANKING77], by_corpus[BANKING77], compared)
    clinc = intents_of(corpora[CLINC150], by_corpus[CLINC150], ())
    shuffles = [
        {bound: by_seed[seed] for bound, by_seed in by_corpus[BANKING77].items()}
        for seed in by_corpus[BANKING77][max(by_corpus[BANKING77])]
    ]
    figures = {
        **_banking_figures(banking),
        **_worst_windows(shuffles),
        **_clinc_figures(clinc),
    }
    intervals = {
        **bootstrap(banking, _banking_figures, "intents", 2_000),
        **bootstrap(shuffles, _worst_windows, "shuffles"),
        **bootstrap(clinc, _clinc_figures, "intents", 1_000),
    }
    return Part(figures, intervals=intervals), constant_thresholds(banking)


def _banking_figures(intents: Sequence[Intent]) -> dict[str, float]:
    found = stream_figures(intents) | gain_figures(intents)
    found["first_1000_hits"] = found.pop("first_1000_hits_03")
    del found["first_1000_hits_01"]
    return found


def _clinc_figures(intents: Sequence[Intent]) -> dict[str, float]:
    found = stream_figures(intents)
    return {
        f"clinc_{name.replace('hit_', '')}": value
        for name, value in found.items()
        if name.startswith(("call_cut", "hit_precision"))
    }


def _worst_windows(shuffles: Sequence[Mapping[float, StreamResult]]) -> dict[str, float]:
    """The worst window of all shuffles, at each bound."""
    return {
        f"worst_window_error_ratio_{round(bound * 100):02d}": max(
            by_bound[bound].worst_error_ratio(bound) for by_bound in shuffles
        )
        for bound in shuffles[0]
    }
