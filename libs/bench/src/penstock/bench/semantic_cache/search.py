"""How long a search among many vectors takes, and how many of the nearest it finds.

The vectors are perturbed real embeddings; random ones would be far too easy to tell apart.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
from penstock.cache.semantic.classes import Floats
from penstock.cache.semantic.decision import NEIGHBOURS
from penstock.cache.semantic.index import VectorIndex

NOISE = 0.02
QUERIES = 400
ROWS_AT_ONCE = 100_000
QUERIES_AT_ONCE = 50


class SearchFigures(NamedTuple):
    """Milliseconds of each search, the share that it found of the true nearest 32, and seconds to
    build the index.
    """

    took_ms: list[float]
    recalls: list[float]
    build_s: float


def measure_search(base: Floats, size: int) -> SearchFigures:
    """Search among `size` perturbed rows of `base`."""
    rng = np.random.default_rng(5)
    rows = np.empty((size, base.shape[1]), np.float32)
    for start in range(0, size, ROWS_AT_ONCE):
        count = min(ROWS_AT_ONCE, size - start)
        rows[start : start + ROWS_AT_ONCE] = _perturbed(base, count, rng)
    index = VectorIndex(base.shape[1])
    began_s = time.perf_counter()
    index.extend(rows)
    build_s = time.perf_counter() - began_s
    queries = _perturbed(rows, QUERIES, rng)
    took_ms: list[float] = []
    recalls: list[float] = []
    for query, nearest in zip(queries, _true_nearest(rows, queries), strict=True):
        began_s = time.perf_counter()
        found = index.search(query, NEIGHBOURS)
        took_ms.append((time.perf_counter() - began_s) * 1e3)
        recalls.append(len({place for place, _ in found} & nearest) / NEIGHBOURS)
    return SearchFigures(took_ms, recalls, build_s)


def _true_nearest(rows: Floats, queries: Floats) -> list[set[int]]:
    """The positions of the nearest rows of each query."""
    nearest: list[set[int]] = []
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        similarities = queries[start : start + QUERIES_AT_ONCE] @ rows.T
        positions = np.argpartition(-similarities, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
        nearest += [set(row.tolist()) for row in positions]
    return nearest


def _perturbed(base: Floats, count: int, rng: np.random.Generator) -> Floats:
    noise = rng.normal(scale=NOISE, size=(count, base.shape[1])).astype(np.float32)
    rows = base[rng.integers(len(base), size=count)] + noise
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)
