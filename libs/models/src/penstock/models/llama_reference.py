"""A llama decoder in plain numpy, which an imported one is held against.

Touvron et al., "LLaMA" (2023): RMS norms, rotary embeddings, grouped keys and values, SwiGLU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from penstock.models.gguf_file import EMBEDDINGS, Floats, LlamaFile


def reference_logits(file: LlamaFile, tokens: Sequence[int]) -> Floats:
    """The logits after each of the tokens (tokens, vocabulary), from the dequantised weights."""
    embeddings = file.matrices[EMBEDDINGS]
    hidden = replace(embeddings, rows=embeddings.rows[list(tokens)]).dequantised()
    for number in range(file.sizes.layers):
        layer = f"blk.{number}"
        hidden = hidden + _attention(file, layer, _norm(file, f"{layer}.attn_norm", hidden))
        hidden = hidden + _feed_forward(file, layer, _norm(file, f"{layer}.ffn_norm", hidden))
    logits: Floats = _norm(file, "output_norm", hidden) @ file.head.dequantised().T
    return logits


def _norm(file: LlamaFile, name: str, x: Floats) -> Floats:
    mean_square = np.square(x).mean(-1, keepdims=True)
    normed: Floats = x / np.sqrt(mean_square + file.sizes.epsilon) * file.vectors[f"{name}.weight"]
    return normed


def _apply(file: LlamaFile, name: str, x: Floats) -> Floats:
    product: Floats = x @ file.matrices[f"{name}.weight"].dequantised().T
    return product


def _attention(file: LlamaFile, layer: str, x: Floats) -> Floats:
    sizes = file.sizes
    query, key, value = (
        _apply(file, f"{layer}.attn_{part}", x).reshape(len(x), -1, sizes.head_size)
        for part in ("q", "k", "v")
    )
    query, key = _rotated(file, query), _rotated(file, key)
    key, value = (np.repeat(each, sizes.heads // sizes.kv_heads, axis=1) for each in (key, value))
    scores = np.einsum("qhd,khd->hqk", query, key) / np.sqrt(sizes.head_size)
    scores = np.where(np.tri(len(x), dtype=bool), scores, -np.inf)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    attended = np.einsum("hqk,khd->qhd", shares, value).reshape(len(x), -1)
    return _apply(file, f"{layer}.attn_output", attended.astype(np.float32))


def _rotated(file: LlamaFile, x: Floats) -> Floats:
    """Each pair of neighbouring numbers turned by its position's angle."""
    angles = np.outer(np.arange(len(x)), file.rope_frequencies())[:, None]
    even, odd = x[..., 0::2], x[..., 1::2]
    pairs = [
        even * np.cos(angles) - odd * np.sin(angles),
        even * np.sin(angles) + odd * np.cos(angles),
    ]
    return np.stack(pairs, axis=-1).reshape(x.shape).astype(np.float32)


def _feed_forward(file: LlamaFile, layer: str, x: Floats) -> Floats:
    gate = _apply(file, f"{layer}.ffn_gate", x)
    inner = gate / (1 + np.exp(-gate)) * _apply(file, f"{layer}.ffn_up", x)
    return _apply(file, f"{layer}.ffn_down", inner)
