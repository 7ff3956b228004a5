"""How long a decision takes, and a search among many vectors."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import partial

import numpy as np
from penstock.bench.harness.intervals import Interval, blocks_of, bootstrap, pooled_quantile
from penstock.bench.harness.parts import Part
from penstock.bench.harness.report import Table
from penstock.bench.semantic_cache.search import measure_search
from penstock.bench.semantic_cache.stream import StreamResult
from penstock.cache.semantic.classes import Floats

DECISION_BLOCKS = 20
"""Blocks of consecutive decisions that the interval of their time is over."""


def timed_figures(first: StreamResult, banking: Floats, clinc: Floats) -> Part:
    """Time of a decision, and of a search among perturbed real embeddings with its recall."""
    base = np.concatenate([banking, clinc])
    figures: dict[str, float] = {}
    intervals: dict[str, Interval] = {}
    for name, size in (("100k", 100_000), ("1m", 1_000_000)):
        found = measure_search(base, size)
        searches = list(zip(found.took_ms, found.recalls, strict=True))
        figures |= _search_figures(searches, name)
        of_size = partial(_search_figures, name=name)
        intervals |= bootstrap(searches, of_size, "searches", 1_000)
    columns = ("vectors", "seconds to build the index")
    build = Table("Search", columns, ((1_000_000, found.build_s),))
    blocks = blocks_of(first.decisions_s, DECISION_BLOCKS)
    of = f"blocks of {len(blocks[0])} decisions"
    intervals |= bootstrap(blocks, _decision_figures, of, 1_000)
    return Part(figures | _decision_figures(blocks), tables=(build,), intervals=intervals)


def _decision_figures(blocks: Sequence[Sequence[float]]) -> dict[str, float]:
    decided = sum(len(block) for block in blocks)
    return {"decision_ms": sum(sum(block) for block in blocks) / decided * 1e3}


def _search_figures(searches: Sequence[tuple[float, float]], name: str) -> dict[str, float]:
    took_ms, recalls = zip(*searches, strict=True)
    recall = "recall_at_32" if name == "100k" else f"recall_at_32_{name}"
    return {
        f"lookup_p99_ms_{name}": pooled_quantile([took_ms], 0.99),
        recall: statistics.fmean(recalls),
    }
