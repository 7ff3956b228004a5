"""Matrices of a GGUF file as sums of 4-bit parts that onnxruntime's `MatMulNBits` multiplies with
activations in floating point, so that nothing is rounded anew.

ggml and `MatMulNBits` both keep blocks of 32 weights with one scale. Two things differ:

- ggml's Q4_1 also keeps a lowest value in floating point. `MatMulNBits` has a fast kernel only
  where that is a whole number of steps, and rounding it costs up to 0.003 of the logits' cosine. So
  the blocks' middles are kept apart, to be multiplied with the sums of the input's blocks.
- With 8-bit weights onnxruntime's fast kernel rounds activations to 8 bits as well, which costs
  0.002 of the cosine. So Q8_0 is the sum of its high and its low halves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from penstock.models.gguf_file import Bytes, Floats, Matrix
from penstock.onnx.card import BadModel

BLOCK = 32
BITS = 4
DEFAULT_ZERO = 8
"""The step that means 0 where `MatMulNBits` is given none."""


@dataclass(frozen=True)
class BlockWeights:
    """A matrix whose weights are `scale * (step - zero) + middle`.

    Attributes:
        steps: (outputs, blocks, 32), each below 16.
        scales: (outputs, blocks).
        zero: the step that means 0.
        middles: (outputs, blocks); None where all are 0.
    """

    steps: Bytes
    scales: Floats
    zero: int = DEFAULT_ZERO
    middles: Floats | None = None

    @property
    def outputs(self) -> int:
        """Rows of the matrix."""
        return int(self.steps.shape[0])

    @property
    def blocks(self) -> int:
        """Blocks of a row."""
        return int(self.steps.shape[1])

    def packed(self) -> Bytes:
        """The steps two a byte, as `MatMulNBits` takes them: the first in the low half."""
        return self.steps[..., 0::2] | (self.steps[..., 1::2] << np.uint8(BITS))

    def zeros(self) -> Bytes | None:
        """Every block's zero two a byte; None for the default."""
        if self.zero == DEFAULT_ZERO:
            return None
        pair = self.zero | (self.zero << BITS)
        return np.full((self.outputs, (self.blocks + 1) // 2), pair, dtype=np.uint8)


def block_weights(matrix: Matrix) -> tuple[BlockWeights, ...]:
    """The parts whose sum is the matrix: exact for Q4_0, Q4_1 and Q8_0; F16 is rounded to Q8_0.

    Raises:
        BadModel: the matrix has another form.
    """
    match matrix.kind:
        case "Q4_0":
            scales, _, halves = _fields(matrix.rows, 18, 2)
            return (BlockWeights(_nibbles(halves), scales),)
        case "Q4_1":
            scales, lowest, halves = _fields(matrix.rows, 20, 4)
            middles = lowest + DEFAULT_ZERO * scales
            return (BlockWeights(_nibbles(halves), scales, middles=middles),)
        case "Q8_0":
            scales, _, steps = _fields(matrix.rows, 34, 2)
            return _halves(steps + np.uint8(128), scales)
        case "F16":
            return _halves(*_rounded(matrix.dequantised()))
    raise BadModel(f"matrices in {matrix.kind} are not imported")


def joined(matrices: Sequence[tuple[BlockWeights, ...]]) -> tuple[BlockWeights, ...] | None:
    """One matrix with the outputs of all; None where their parts are of different forms."""
    forms = {tuple((part.zero, part.middles is None) for part in parts) for parts in matrices}
    if len(forms) > 1:
        return None
    return tuple(_stacked(parts) for parts in zip(*matrices, strict=True))


def _stacked(parts: Sequence[BlockWeights]) -> BlockWeights:
    middles = [part.middles for part in parts if part.middles is not None]
    return BlockWeights(
        np.concatenate([part.steps for part in parts]),
        np.concatenate([part.scales for part in parts]),
        parts[0].zero,
        np.concatenate(middles) if middles else None,
    )


def _halves(steps: Bytes, scales: Floats) -> tuple[BlockWeights, BlockWeights]:
    """Steps of 8 bits around 128 as 16 times their high halves around 8, and their low halves."""
    high, low = steps >> np.uint8(BITS), steps & np.uint8(15)
    return BlockWeights(high, 16 * scales), BlockWeights(low, scales, zero=0)


def _fields(rows: np.ndarray[Any, Any], size: int, header: int) -> tuple[Floats, Floats, Bytes]:
    """Of blocks of `size` bytes: the first and the last half-precision number of the header, and
    the bytes after it.
    """
    blocks = np.ascontiguousarray(rows).reshape(len(rows), -1, size)
    numbers = np.ascontiguousarray(blocks[..., :header]).view(np.float16).astype(np.float32)
    return numbers[..., 0], numbers[..., -1], blocks[..., header:]


def _nibbles(halves: Bytes) -> Bytes:
    """ggml keeps the first 16 steps of a block in the low halves, the others in the high ones."""
    return np.concatenate([halves & 15, halves >> 4], axis=-1)


def _rounded(weights: Floats) -> tuple[Bytes, Floats]:
    """The nearest steps of 8 bits around 128, and their scales."""
    if weights.shape[1] % BLOCK:
        raise BadModel(f"a matrix in F16 has {weights.shape[1]} columns, not a multiple of {BLOCK}")
    blocks = weights.reshape(len(weights), -1, BLOCK)
    scales = np.abs(blocks).max(axis=-1) / 127
    steps = np.rint(blocks / np.where(scales > 0, scales, 1)[..., None])
    return (steps + 128).astype(np.uint8), scales.astype(np.float32)
