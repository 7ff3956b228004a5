"""A BERT sentence encoder in plain numpy, one text at a time: what a written graph is held against.

It is written from the papers that `bert_graph` names and shares nothing with the graph but the
weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from penstock.service.purity import pure

Floats = np.ndarray[Any, np.dtype[np.float32]]
_gelu = np.vectorize(lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2))), otypes=[np.float32])


@pure
@dataclass(frozen=True)
class BertReference:
    """The encoder.

    Attributes:
        config: what `config.json` says.
        weights: by their names in a `BertModel`.
        pooling: `mean` over the tokens, or `cls` for the first one.
    """

    config: Mapping[str, Any]
    weights: Mapping[str, Floats]
    pooling: str = "mean"

    def embed(self, ids: Sequence[int], segments: Sequence[int]) -> Floats:
        """The embedding of one text, at length 1."""
        hidden = self._embeddings(ids, segments)
        for number in range(self.config["num_hidden_layers"]):
            hidden = self._layer(f"encoder.layer.{number}", hidden)
        pooled = hidden[0] if self.pooling == "cls" else hidden.mean(0)
        vector: Floats = pooled / np.linalg.norm(pooled)
        return vector

    def _embeddings(self, ids: Sequence[int], segments: Sequence[int]) -> Floats:
        rows = {
            "word_embeddings": list(ids),
            "position_embeddings": list(range(len(ids))),
            "token_type_embeddings": list(segments),
        }
        parts = [self.weights[f"embeddings.{name}.weight"][row] for name, row in rows.items()]
        return self._norm("embeddings.LayerNorm", parts[0] + parts[1] + parts[2])

    def _layer(self, name: str, hidden: Floats) -> Floats:
        attended = self._apply(f"{name}.attention.output.dense", self._attend(name, hidden))
        hidden = self._norm(f"{name}.attention.output.LayerNorm", attended + hidden)
        inner = _gelu(self._apply(f"{name}.intermediate.dense", hidden))
        return self._norm(
            f"{name}.output.LayerNorm", self._apply(f"{name}.output.dense", inner) + hidden
        )

    def _attend(self, name: str, hidden: Floats) -> Floats:
        heads = self.config["num_attention_heads"]
        query, key, value = (
            self._apply(f"{name}.attention.self.{part}", hidden)
            .reshape(len(hidden), heads, -1)
            .transpose(1, 0, 2)
            for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[-1])
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        attended: Floats = (shares @ value).transpose(1, 0, 2).reshape(hidden.shape)
        return attended

    def _apply(self, name: str, x: Floats) -> Floats:
        product: Floats = x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]
        return product

    def _norm(self, name: str, x: Floats) -> Floats:
        deviation = np.sqrt(x.var(-1, keepdims=True) + self.config["layer_norm_eps"])
        scaled = (x - x.mean(-1, keepdims=True)) / deviation * self.weights[f"{name}.weight"]
        normed: Floats = scaled + self.weights[f"{name}.bias"]
        return normed
