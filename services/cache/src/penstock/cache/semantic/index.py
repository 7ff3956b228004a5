"""The vectors of one scope in FAISS: flat while small, a graph (HNSW) beyond, and lists of bytes
where a graph would take too long.

All use is on the one worker thread; FAISS itself runs one thread. A graph cannot forget: removed
places are tombstones that a search skips, and too many of them make the index anew.
"""

from __future__ import annotations

import math
from typing import Any

import faiss
import numpy as np
from penstock.cache.semantic.classes import Floats
from threadpoolctl import threadpool_limits

FLAT_UP_TO = 20_000
HNSW_LINKS, BUILD_EFFORT, SEARCH_EFFORT = 32, 80, 96
GRAPH_UP_TO = 250_000
LISTS, LISTS_SEARCHED, TRAINED_ON = 2_048, 24, 100_000
MAX_REMOVED_SHARE = 0.3
faiss.omp_set_num_threads(1)
threadpool_limits(
    1, "blas"
)  # one decision's matrices are small: a second thread costs more than it brings


class VectorIndex:
    """Unit vectors by place (0, 1, …); places never change while they live."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._index: Any = faiss.IndexFlatIP(width)
        self._outgrown_at: float = FLAT_UP_TO
        self._places: list[int] = []
        """Place of each row of the index."""
        self._dead: set[int] = set()
        self._vectors: dict[int, Floats] = {}

    def __len__(self) -> int:
        return len(self._vectors)

    def __contains__(self, place: int) -> bool:
        return place in self._vectors

    def add(self, place: int, vector: Floats) -> None:
        """Keep a vector."""
        self._vectors[place] = vector
        self._index.add(vector[None])
        self._places.append(place)
        if len(self._places) > self._outgrown_at:
            self._build()

    def extend(self, vectors: Floats) -> None:
        """Keep many vectors at once, at the places that follow."""
        first = max(self._vectors, default=-1) + 1
        self._vectors.update({first + number: vector for number, vector in enumerate(vectors)})
        self._build()

    def remove(self, place: int) -> None:
        """Forget a vector."""
        if self._vectors.pop(place, None) is None:
            return
        self._dead.add(place)
        if len(self._dead) > max(64, MAX_REMOVED_SHARE * len(self._places)):
            self._build()

    def search(self, vector: Floats, most: int) -> list[tuple[int, float]]:
        """Places and cosines of the nearest, nearest first."""
        if not self._places:
            return []
        wanted = min(most + min(len(self._dead), most), len(self._places))
        similar, rows = self._index.search(vector[None], wanted)
        found = [
            (self._places[row], float(value))
            for value, row in zip(similar[0], rows[0], strict=True)
            if row >= 0 and self._places[row] not in self._dead
        ]
        return found[:most]

    def _build(self) -> None:
        self._places = list(self._vectors)
        self._dead = set()
        rows = (
            np.stack([self._vectors[place] for place in self._places])
            if self._places
            else np.zeros((0, self._width), np.float32)
        )
        self._index, self._outgrown_at = self._kind(rows)
        self._index.add(rows)

    def _kind(self, rows: Floats) -> tuple[Any, float]:
        """An empty index of the kind that so many rows want, and the number of rows from which
        another kind is better.
        """
        if len(rows) <= FLAT_UP_TO:
            return faiss.IndexFlatIP(self._width), FLAT_UP_TO
        if len(rows) <= GRAPH_UP_TO:
            graph = faiss.IndexHNSWFlat(self._width, HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
            graph.hnsw.efConstruction, graph.hnsw.efSearch = BUILD_EFFORT, SEARCH_EFFORT
            return graph, GRAPH_UP_TO
        self._coarse = faiss.IndexFlatIP(self._width)  # FAISS keeps a bare pointer to it
        lists = faiss.IndexIVFScalarQuantizer(
            self._coarse,
            self._width,
            LISTS,
            faiss.ScalarQuantizer.QT_8bit,
            faiss.METRIC_INNER_PRODUCT,
        )
        lists.train(rows[:: max(1, len(rows) // TRAINED_ON)])
        lists.nprobe = LISTS_SEARCHED
        return lists, math.inf
