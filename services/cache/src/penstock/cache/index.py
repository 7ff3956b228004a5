"""The vectors of one scope in FAISS: flat while small, HNSW beyond. All use is on the one worker thread; FAISS itself runs one thread.

HNSW cannot forget: removed places are tombstones that a search skips, and too many of them make the index anew.
"""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
from penstock.cache.classes import Floats

FLAT_UP_TO = 20_000
HNSW_LINKS, BUILD_EFFORT, SEARCH_EFFORT = 32, 80, 96
MOST_DEAD = 0.3
faiss.omp_set_num_threads(1)


class VectorIndex:
    """Unit vectors by place (0, 1, …); places never change while they live."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._index: Any = faiss.IndexFlatIP(width)
        self._flat = True
        self._places: list[int] = []
        """Place of each row of the index."""
        self._dead: set[int] = set()
        self._vectors: dict[int, Floats] = {}

    def __len__(self) -> int:
        return len(self._vectors)

    def add(self, place: int, vector: Floats) -> None:
        """Keep a vector."""
        self._vectors[place] = vector
        self._index.add(vector[None])
        self._places.append(place)
        if self._flat and len(self._vectors) > FLAT_UP_TO:
            self._flat = False
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
        if len(self._dead) > max(64, MOST_DEAD * len(self._places)):
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
        self._flat = len(self._places) <= FLAT_UP_TO
        if self._flat:
            self._index = faiss.IndexFlatIP(self._width)
        else:
            self._index = faiss.IndexHNSWFlat(self._width, HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
            self._index.hnsw.efConstruction, self._index.hnsw.efSearch = BUILD_EFFORT, SEARCH_EFFORT
        if self._places:
            self._index.add(np.stack([self._vectors[place] for place in self._places]))
