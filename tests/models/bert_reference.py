"""A BERT sentence encoder in plain numpy, one text at a time, and random weights for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float32]]
CONFIG = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "hidden_size": 32,
    "intermediate_size": 64,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "type_vocab_size": 2,
    "vocab_size": 50,
}
_gelu = np.vectorize(lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2))))


def random_weights(rng: np.random.Generator) -> dict[str, Floats]:
    """Weights of a model of `CONFIG`, by their names in a `BertModel`."""
    width, inner = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    shapes: dict[str, tuple[Any, ...]] = {
        "embeddings.word_embeddings.weight": (CONFIG["vocab_size"], width),
        "embeddings.position_embeddings.weight": (CONFIG["max_position_embeddings"], width),
        "embeddings.token_type_embeddings.weight": (CONFIG["type_vocab_size"], width),
    }
    norms = ["embeddings.LayerNorm"]
    for number in range(CONFIG["num_hidden_layers"]):
        layer = f"encoder.layer.{number}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            shapes |= _linear(f"{layer}.attention.{part}", width, width)
        shapes |= _linear(f"{layer}.intermediate.dense", inner, width)
        shapes |= _linear(f"{layer}.output.dense", width, inner)
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
    for norm in norms:
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    return {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}


def _linear(name: str, outputs: Any, inputs: Any) -> dict[str, tuple[Any, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def embed(weights: Mapping[str, Floats], ids: list[int], segments: list[int]) -> Floats:
    """The embedding of one text, at length 1."""
    names = ("word_embeddings", "position_embeddings", "token_type_embeddings")
    indices = (ids, list(range(len(ids))), segments)
    hidden = sum(
        weights[f"embeddings.{name}.weight"][index]
        for name, index in zip(names, indices, strict=True)
    )
    hidden = _norm(weights, "embeddings.LayerNorm", hidden)
    for number in range(CONFIG["num_hidden_layers"]):
        layer = f"encoder.layer.{number}"
        attended = _apply(
            weights, f"{layer}.attention.output.dense", _attend(weights, layer, hidden)
        )
        hidden = _norm(weights, f"{layer}.attention.output.LayerNorm", attended + hidden)
        inner = _gelu(_apply(weights, f"{layer}.intermediate.dense", hidden))
        outer = _apply(weights, f"{layer}.output.dense", inner)
        hidden = _norm(weights, f"{layer}.output.LayerNorm", outer + hidden)
    mean = hidden.mean(0)
    return mean / np.linalg.norm(mean)


def _apply(weights: Mapping[str, Floats], name: str, x: Any) -> Any:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _norm(weights: Mapping[str, Floats], name: str, x: Any) -> Any:
    deviation = np.sqrt(x.var(-1, keepdims=True) + CONFIG["layer_norm_eps"])
    return (x - x.mean(-1, keepdims=True)) / deviation * weights[f"{name}.weight"] + weights[
        f"{name}.bias"
    ]


def _attend(weights: Mapping[str, Floats], layer: str, hidden: Any) -> Any:
    heads = CONFIG["num_attention_heads"]
    query, key, value = (
        _apply(weights, f"{layer}.attention.self.{part}", hidden)
        .reshape(len(hidden), heads, -1)
        .transpose(1, 0, 2)
        for part in ("query", "key", "value")
    )
    scores = query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[-1])
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    return (shares @ value).transpose(1, 0, 2).reshape(hidden.shape)
