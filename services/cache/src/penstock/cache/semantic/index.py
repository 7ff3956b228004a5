"""The nearest vectors of one scope, by FAISS.

The kind of index depends on the number of vectors: exhaustive search while there are few, an HNSW
graph (Malkov and Yashunin 2018) beyond, and inverted lists of 8-bit vectors where building a graph
would take too long.

A graph cannot remove vectors. Removed ones stay in it, searches skip them, and the index is rebuilt
once their share is too large.

An index is used on one thread, and FAISS and BLAS are held to one thread each: the matrices of a
single decision are so small that a second thread costs more than it saves.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from penstock.cache.semantic.classes import Floats

HNSW_LINKS = 32
HNSW_BUILD_EFFORT = 80
HNSW_SEARCH_EFFORT = 96
MAX_TRAINING_VECTORS = 100_000
"""Vectors on which the centres of inverted lists are trained, about."""
MAX_REMOVED_SHARE = 0.3
MIN_REMOVED = 64
"""An index is rebuilt when this many vectors are removed, and more than that share of all."""


@dataclass(frozen=True, slots=True)
class IndexSizes:
    """Up to how many vectors each kind of index is used, and the shape of inverted lists."""

    max_flat: int = 20_000
    max_graph: int = 250_000
    list_count: int = 2_048
    lists_searched: int = 24


DEFAULT_SIZES = IndexSizes()


@functools.cache
def _faiss() -> Any:
    """FAISS on one thread; imported with the first scope, since exact answers need none."""
    import faiss
    from threadpoolctl import threadpool_limits

    faiss.omp_set_num_threads(1)
    threadpool_limits(1, "blas")
    return faiss


class VectorIndex:
    """Unit vectors by a caller's number for each (0, 1, …), which it keeps until it is removed."""

    def __init__(self, width: int, sizes: IndexSizes = DEFAULT_SIZES) -> None:
        self._width = width
        self._sizes = sizes
        self._index: Any = _faiss().IndexFlatIP(width)
        self._max_rows: float = sizes.max_flat
        """Rows beyond which another kind of index is used."""
        self._row_ids: list[int] = []
        """The vector of each row of the index."""
        self._removed: set[int] = set()
        """Vectors that still have a row, and are not to be found."""
        self._vectors: dict[int, Floats] = {}

    def __len__(self) -> int:
        return len(self._vectors)

    def __contains__(self, vector_id: int) -> bool:
        return vector_id in self._vectors

    def add(self, vector_id: int, vector: Floats) -> None:
        """Add a vector of length 1."""
        self._vectors[vector_id] = vector
        self._index.add(vector[None])
        self._row_ids.append(vector_id)
        if len(self._row_ids) > self._max_rows:
            self._rebuild()

    def extend(self, vectors: Floats) -> None:
        """Add many vectors at once, under the numbers that follow the largest one."""
        first = max(self._vectors, default=-1) + 1
        self._vectors.update({first + number: vector for number, vector in enumerate(vectors)})
        self._rebuild()

    def remove(self, vector_id: int) -> None:
        """Remove a vector, if it is there."""
        if self._vectors.pop(vector_id, None) is None:
            return
        self._removed.add(vector_id)
        if len(self._removed) > max(MIN_REMOVED, MAX_REMOVED_SHARE * len(self._row_ids)):
            self._rebuild()

    def search(self, vector: Floats, count: int) -> list[tuple[int, float]]:
        """The `count` nearest vectors and their cosines, nearest first."""
        if not self._row_ids:
            return []
        wanted = min(count + min(len(self._removed), count), len(self._row_ids))
        cosines, rows = self._index.search(vector[None], wanted)
        found = [
            (self._row_ids[row], float(cosine))
            for cosine, row in zip(cosines[0], rows[0], strict=True)
            if row >= 0 and self._row_ids[row] not in self._removed
        ]
        return found[:count]

    def _rebuild(self) -> None:
        self._row_ids = list(self._vectors)
        self._removed = set()
        rows = np.zeros((0, self._width), np.float32)
        if self._row_ids:
            rows = np.stack([self._vectors[vector_id] for vector_id in self._row_ids])
        self._index, self._max_rows = self._empty_index(rows)
        self._index.add(rows)

    def _empty_index(self, rows: Floats) -> tuple[Any, float]:
        """An empty index of the kind that suits these rows, and the largest number of rows that it
        suits.
        """
        faiss = _faiss()
        if len(rows) <= self._sizes.max_flat:
            return faiss.IndexFlatIP(self._width), self._sizes.max_flat
        if len(rows) <= self._sizes.max_graph:
            graph = faiss.IndexHNSWFlat(self._width, HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
            graph.hnsw.efConstruction = HNSW_BUILD_EFFORT
            graph.hnsw.efSearch = HNSW_SEARCH_EFFORT
            return graph, self._sizes.max_graph
        self._coarse = faiss.IndexFlatIP(self._width)  # FAISS keeps only a pointer to it
        lists = faiss.IndexIVFScalarQuantizer(
            self._coarse,
            self._width,
            self._sizes.list_count,
            faiss.ScalarQuantizer.QT_8bit,
            faiss.METRIC_INNER_PRODUCT,
        )
        lists.train(rows[:: max(1, len(rows) // MAX_TRAINING_VECTORS)])
        lists.nprobe = self._sizes.lists_searched
        return lists, math.inf
