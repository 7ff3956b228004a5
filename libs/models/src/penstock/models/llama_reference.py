"""A llama decoder in plain numpy, which an imported one is held against.

Touvron et al., "LLaMA" (2023): RMS norms, rotary embeddings, grouped keys and values, SwiGLU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from penstock.models.gguf_file import EMBEDDINGS, LAYER_MATRICES, Floats, LlamaFile

Weights = Mapping[str, Floats]
"""The dequantised matrices of one layer, by their names in it."""


def reference_logits(file: LlamaFile, texts: Sequence[Sequence[int]]) -> list[Floats]:
    """For each text, given as tokens, the logits after each of them (tokens, vocabulary), from the
    dequantised weights.

    Layer by layer for all texts: dequantising takes longer than computing.
    """
    embeddings = file.matrices[EMBEDDINGS]
    rows = [replace(embeddings, rows=embeddings.rows[list(tokens)]) for tokens in texts]
    hidden = [each.dequantised() for each in rows]
    for number in range(file.sizes.layers):
        layer = f"blk.{number}"
        weights = {
            name: file.matrices[f"{layer}.{name}.weight"].dequantised() for name in LAYER_MATRICES
        }
        hidden = [_after_layer(file, layer, weights, each) for each in hidden]
    head = file.head.dequantised().T
    return [_norm(file, "output_norm", each) @ head for each in hidden]


def _after_layer(file: LlamaFile, layer: str, weights: Weights, hidden: Floats) -> Floats:
    hidden = hidden + _attention(file, weights, _norm(file, f"{layer}.attn_norm", hidden))
    fed: Floats = hidden + _feed_forward(weights, _norm(file, f"{layer}.ffn_norm", hidden))
    return fed


def _norm(file: LlamaFile, name: str, x: Floats) -> Floats:
    mean_square = np.square(x).mean(-1, keepdims=True)
    normed: Floats = x / np.sqrt(mean_square + file.sizes.epsilon) * file.vectors[f"{name}.weight"]
    return normed


def _apply(weights: Weights, name: str, x: Floats) -> Floats:
    product: Floats = x @ weights[name].T
    return product


def _attention(file: LlamaFile, weights: Weights, x: Floats) -> Floats:
    sizes = file.sizes
    query, key, value = (
        _apply(weights, f"attn_{part}", x).reshape(len(x), -1, sizes.head_size)
        for part in ("q", "k", "v")
    )
    query, key = _rotated(file, query), _rotated(file, key)
    key, value = (np.repeat(each, sizes.heads // sizes.kv_heads, axis=1) for each in (key, value))
    scores = np.einsum("qhd,khd->hqk", query, key) / np.sqrt(sizes.head_size)
    scores = np.where(np.tri(len(x), dtype=bool), scores, -np.inf)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    attended = np.einsum("hqk,khd->qhd", shares, value).reshape(len(x), -1)
    return _apply(weights, "attn_output", attended.astype(np.float32))


def _rotated(file: LlamaFile, x: Floats) -> Floats:
    """Each pair of neighbouring numbers turned by its position's angle."""
    angles = np.outer(np.arange(len(x)), file.rope_frequencies())[:, None]
    even, odd = x[..., 0::2], x[..., 1::2]
    pairs = [
        even * np.cos(angles) - odd * np.sin(angles),
        even * np.sin(angles) + odd * np.cos(angles),
    ]
    return np.stack(pairs, axis=-1).reshape(x.shape).astype(np.float32)


def _feed_forward(weights: Weights, x: Floats) -> Floats:
    gate = _apply(weights, "ffn_gate", x)
    inner = gate / (1 + np.exp(-gate)) * _apply(weights, "ffn_up", x)
    return _apply(weights, "ffn_down", inner)
