"""A GGUF file of the llama architecture: its sizes and tensors, checked before anything is made.

The format is that of ggml (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md); its own
Python package reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from penstock.models.gguf_lengths import check_lengths
from penstock.onnx.card import BadModel

ARCHITECTURE = "llama"
MATRIX_TYPES = ("Q4_0", "Q4_1", "Q8_0", "F16")
"""The quantisations of matrices that are read; vectors are in F32."""
EMBEDDINGS, HEAD, ROPE_FACTORS = "token_embd.weight", "output.weight", "rope_freqs.weight"
LAYER_MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
Floats = np.ndarray[Any, np.dtype[np.float32]]
Bytes = np.ndarray[Any, np.dtype[np.uint8]]
_Value = TypeVar("_Value", int, float, str, bool)


@dataclass(frozen=True)
class LlamaSizes:
    """The sizes of a decoder, and the constants of its norms and rotary embeddings."""

    layers: int
    width: int
    inner_width: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    context: int
    """Tokens that the model was trained to look back at."""
    epsilon: float
    rope_base: float


@dataclass(frozen=True)
class Matrix:
    """A matrix of (outputs, inputs) as the file holds it.

    Attributes:
        kind: one of `MATRIX_TYPES`.
        rows: the bytes of each row, or for F16 its numbers.
    """

    kind: str
    rows: np.ndarray[Any, Any]

    def dequantised(self) -> Floats:
        """Its numbers."""
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize

        numbers = dequantize(self.rows, GGMLQuantizationType[self.kind])
        return np.asarray(numbers, dtype=np.float32)


@dataclass(frozen=True)
class LlamaFile:
    """What a GGUF file holds; the tensors are read from the disk when they are used."""

    sizes: LlamaSizes
    matrices: Mapping[str, Matrix]
    vectors: Mapping[str, Floats]
    metadata: Mapping[str, Any]
    """The tokenizer's entries, the chat template and the licence, by their names in the file."""

    @property
    def head(self) -> Matrix:
        """The matrix that gives the logits; often the embeddings."""
        return self.matrices.get(HEAD, self.matrices[EMBEDDINGS])

    def rope_frequencies(self) -> Floats:
        """Radians a position of each pair of a head's numbers (Su et al., "RoFormer", 2021)."""
        exponents = np.arange(0, self.sizes.head_size, 2) / self.sizes.head_size
        factors = self.vectors.get(ROPE_FACTORS, np.float32(1))
        return np.asarray(self.sizes.rope_base**-exponents / factors, dtype=np.float32)


def read_gguf(path: Path) -> LlamaFile:
    """The decoder in a GGUF file.

    Raises:
        BadModel: the file is cut or not GGUF, or has another architecture or quantisation, or lacks
            a tensor; the text says which.
    """
    from gguf import GGUFReader

    try:
        check_lengths(path)
        reader = GGUFReader(path)
        metadata = {name: field.contents() for name, field in reader.fields.items()}
        tensors = {tensor.name: tensor for tensor in reader.tensors}
    except OSError as error:
        raise BadModel(f"{path}: cannot be read ({error.strerror})") from None
    except Exception as error:  # the reader trusts its file, so damage raises whatever comes first
        raise BadModel(f"{path}: is cut or is not a GGUF file ({type(error).__name__})") from None
    try:
        return _checked(metadata, tensors)
    except BadModel as error:
        raise BadModel(f"{path}: {error}") from None


def _checked(metadata: Mapping[str, Any], tensors: Mapping[str, Any]) -> LlamaFile:
    architecture = metadata.get("general.architecture")
    if architecture != ARCHITECTURE:
        raise BadModel(f"its architecture is {architecture}; only {ARCHITECTURE} is imported")
    sizes = _sizes(metadata)
    matrices, vectors = _matrix_shapes(sizes), _vector_shapes(sizes)
    if HEAD not in tensors:
        del matrices[HEAD]
    if ROPE_FACTORS not in tensors:
        del vectors[ROPE_FACTORS]
    for name, shape in {**matrices, **vectors}.items():
        _check_shape(name, shape, tensors)
    unknown = sorted(tensors.keys() - matrices.keys() - vectors.keys())
    if unknown:
        raise BadModel(f"tensor {unknown[0]} is not one of a plain {ARCHITECTURE} model")
    return LlamaFile(
        sizes,
        {name: _matrix(name, tensors[name]) for name in matrices},
        {name: _vector(name, tensors[name]) for name in vectors},
        metadata,
    )


def _sizes(metadata: Mapping[str, Any]) -> LlamaSizes:
    def value(name: str, default: _Value | None = None) -> Any:
        found = metadata.get(f"{ARCHITECTURE}.{name}", default)
        if isinstance(found, bool) or not isinstance(found, int | float) or found <= 0:
            raise BadModel(f"{ARCHITECTURE}.{name} is missing or not a positive number")
        return found

    if metadata.get(f"{ARCHITECTURE}.rope.scaling.type", "none") != "none":
        raise BadModel("its rotary embeddings are scaled, which is not imported")
    width, heads = value("embedding_length"), value("attention.head_count")
    head_size = value("attention.key_length", width // heads)
    if value("rope.dimension_count", head_size) != head_size:
        raise BadModel("its rotary embeddings turn a part of each head, which is not imported")
    tokens = metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not tokens:
        raise BadModel("tokenizer.ggml.tokens is missing")
    return LlamaSizes(
        layers=value("block_count"),
        width=width,
        inner_width=value("feed_forward_length"),
        heads=heads,
        kv_heads=value("attention.head_count_kv", heads),
        head_size=head_size,
        vocabulary=len(tokens),
        context=value("context_length"),
        epsilon=value("attention.layer_norm_rms_epsilon"),
        rope_base=value("rope.freq_base", 10_000.0),
    )


def _matrix_shapes(sizes: LlamaSizes) -> dict[str, tuple[int, ...]]:
    """The matrices of such a model, and their (outputs, inputs)."""
    width, inner = sizes.width, sizes.inner_width
    attended, kept = sizes.heads * sizes.head_size, sizes.kv_heads * sizes.head_size
    shapes = (
        *((attended, width), (kept, width), (kept, width), (width, attended)),
        *((inner, width), (inner, width), (width, inner)),
    )
    layer = dict(zip(LAYER_MATRICES, shapes, strict=True))
    return {
        EMBEDDINGS: (sizes.vocabulary, width),
        HEAD: (sizes.vocabulary, width),
        **{
            f"blk.{number}.{name}.weight": shape
            for number in range(sizes.layers)
            for name, shape in layer.items()
        },
    }


def _vector_shapes(sizes: LlamaSizes) -> dict[str, tuple[int, ...]]:
    norms = [
        f"blk.{number}.{name}.weight"
        for number in range(sizes.layers)
        for name in ("attn_norm", "ffn_norm")
    ]
    return {
        ROPE_FACTORS: (sizes.head_size // 2,),
        **dict.fromkeys([*norms, "output_norm.weight"], (sizes.width,)),
    }


def _check_shape(name: str, shape: tuple[int, ...], tensors: Mapping[str, Any]) -> None:
    if name not in tensors:
        raise BadModel(f"tensor {name} is missing")
    found = tuple(int(size) for size in reversed(tensors[name].shape))
    if found != shape:
        raise BadModel(f"tensor {name} has the shape {found}, not {shape}")


def _matrix(name: str, tensor: Any) -> Matrix:
    kind = tensor.tensor_type.name
    if kind not in MATRIX_TYPES:
        raise BadModel(f"tensor {name} is in {kind}; imported are {', '.join(MATRIX_TYPES)}")
    return Matrix(kind, tensor.data)


def _vector(name: str, tensor: Any) -> Floats:
    if tensor.tensor_type.name != "F32":
        raise BadModel(f"tensor {name} is in {tensor.tensor_type.name}; imported is F32")
    return np.array(tensor.data, dtype=np.float32)
