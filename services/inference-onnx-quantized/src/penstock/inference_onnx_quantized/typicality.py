"""How usual what a model is asked is: the distribution of its embeddings against its own beginning,
in one number. Plain.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from penstock.inference_onnx_quantized.classification import Floats

REFERENCE_EMBEDDINGS = 256
"""Embeddings whose mean direction is what later ones are compared with."""


class Typicality:
    """Cosine of an embedding to the mean of the first ones.

    When what is asked moves elsewhere, so does its mean.
    """

    def __init__(self) -> None:
        self._sum: Floats | None = None
        self._unit: Floats | None = None
        self._seen = 0

    def of(self, values: Sequence[float]) -> float | None:
        """The cosine; None while the reference is being learnt, of a vector without length, or of
        another width.
        """
        vector = np.fromiter(values, np.float32, len(values))
        length = float(np.linalg.norm(vector))
        if not length or not np.isfinite(length):
            return None
        if self._unit is not None:
            return float(vector @ self._unit) / length if vector.shape == self._unit.shape else None
        self._learn(vector / np.float32(length))
        return None

    def _learn(self, unit: Floats) -> None:
        if self._sum is None or self._sum.shape != unit.shape:
            self._sum, self._seen = np.zeros_like(unit), 0
        self._sum += unit
        self._seen += 1
        if self._seen == REFERENCE_EMBEDDINGS:
            self._unit = self._sum / np.maximum(np.linalg.norm(self._sum), 1e-12)
