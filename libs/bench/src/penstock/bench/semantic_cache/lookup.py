"""How long a search among many vectors takes, and what it finds.

The vectors are perturbed real embeddings, never random ones.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
from penstock.cache.semantic.classes import Floats
from penstock.cache.semantic.decision import NEIGHBOURS
from penstock.cache.semantic.index import VectorIndex

NOISE = 0.02
ASKED = 400
AT_ONCE = 50


def lookup(base: Floats, size: int) -> tuple[float, float, float]:
    """p99 of a search among `size` perturbed rows of `base` in ms, what it finds of the true
    nearest 32, and the seconds of building.
    """
    rng = np.random.default_rng(5)
    rows = np.empty((size, base.shape[1]), np.float32)
    for at in range(0, size, 100_000):
        rows[at : at + 100_000] = _near(base, min(100_000, size - at), rng)
    index = VectorIndex(base.shape[1])
    began = time.perf_counter()
    index.extend(rows)
    built_s = time.perf_counter() - began
    asked, taken, found = _near(rows, ASKED, rng), [], []
    for vector in asked:
        began = time.perf_counter()
        near = index.search(vector, NEIGHBOURS)
        taken.append((time.perf_counter() - began) * 1e3)
        found.append({place for place, _ in near})
    recall = [
        len(places & truth) / NEIGHBOURS
        for places, truth in zip(found, _nearest(rows, asked), strict=True)
    ]
    return sorted(taken)[int(0.99 * len(taken))], statistics.mean(recall), built_s


def _nearest(rows: Floats, asked: Floats) -> list[set[int]]:
    """The places of the true nearest of each query."""
    best: list[set[int]] = []
    for at in range(0, len(asked), AT_ONCE):
        similar = asked[at : at + AT_ONCE] @ rows.T
        places = np.argpartition(-similar, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
        best += [set(row.tolist()) for row in places]
    return best


def _near(base: Floats, count: int, rng: np.random.Generator) -> Floats:
    noise = rng.normal(scale=NOISE, size=(count, base.shape[1])).astype(np.float32)
    rows = base[rng.integers(len(base), size=count)] + noise
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)
