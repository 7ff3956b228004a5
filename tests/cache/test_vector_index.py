"""The vector index: it finds the nearest vectors, and never removed ones, whatever its kind."""

from __future__ import annotations

import numpy as np
from penstock.cache.semantic.index import IndexSizes, VectorIndex

WIDTH = 32


def unit_vectors(count: int) -> np.ndarray:
    vectors = np.random.default_rng(3).normal(size=(count, WIDTH)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def nearest(vectors: np.ndarray, ids: list[int], query: np.ndarray, count: int) -> list[int]:
    return sorted(ids, key=lambda vector_id: -float(vectors[vector_id] @ query))[:count]


def test_the_nearest_vectors_are_found_in_order_and_removed_ones_are_not() -> None:
    index, vectors = VectorIndex(WIDTH), unit_vectors(300)
    for vector_id, vector in enumerate(vectors):
        index.add(vector_id, vector)
    for vector_id in range(0, 300, 2):
        index.remove(vector_id)
    found = [vector_id for vector_id, _ in index.search(vectors[10], 5)]
    assert found == nearest(vectors, list(range(1, 300, 2)), vectors[10], 5)
    assert len(index) == 150


def test_the_index_changes_its_kind_as_it_grows_and_removes_vectors_in_each() -> None:
    """Exhaustive search, then a graph, then inverted lists."""
    sizes = IndexSizes(max_flat=200, max_graph=2_000, list_count=16, lists_searched=12)
    index, vectors = VectorIndex(WIDTH, sizes), unit_vectors(2_600)
    for vector_id, vector in enumerate(vectors):
        index.add(vector_id, vector)
        if vector_id + 1 in (150, 1_500, 2_600):
            removed = set(range(vector_id - 100, vector_id, 2))
            for one in removed:
                index.remove(one)
            present = [one for one in range(vector_id + 1) if one in index]
            hits = 0
            for query in vectors[:40]:
                found = {one for one, _ in index.search(query, 8)}
                assert not removed & found
                hits += len(found & set(nearest(vectors, present, query, 8)))
            assert hits / (40 * 8) > 0.9
