"""How typical a text is of the first texts that this model embedded, as one number.

When the distribution of texts moves, the mean of this number moves with it: a cheap sign of drift.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from penstock.onnx.encoder import Floats

REFERENCE_EMBEDDINGS = 256
"""The first embeddings, whose mean direction later ones are compared with."""


class Typicality:
    """Cosine of an embedding to the mean of the first ones."""

    def __init__(self) -> None:
        self._sum: Floats | None = None
        self._mean_direction: Floats | None = None
        self._count = 0

    def score(self, values: Sequence[float]) -> float | None:
        """The cosine of an embedding to the reference.

        None while the reference is being learned, of a vector that has no direction, and of one
        that has another dimension.
        """
        vector = np.fromiter(values, np.float32, len(values))
        length = float(np.linalg.norm(vector))
        if not length or not np.isfinite(length):
            return None
        if self._mean_direction is None:
            self._learn(vector / np.float32(length))
            return None
        if vector.shape != self._mean_direction.shape:
            return None
        return float(vector @ self._mean_direction) / length

    def _learn(self, direction: Floats) -> None:
        """Add one embedding to the reference; another dimension starts it again."""
        if self._sum is None or self._sum.shape != direction.shape:
            self._sum = np.zeros_like(direction)
            self._count = 0
        self._sum += direction
        self._count += 1
        if self._count == REFERENCE_EMBEDDINGS:
            self._mean_direction = self._sum / np.maximum(np.linalg.norm(self._sum), 1e-12)
