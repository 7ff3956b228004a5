"""The ONNX graph of a llama decoder for onnxruntime-genai, written from a GGUF file's weights.

Matrices stay in the file's precision, and activations in floating point (see `block_weights`). Only
the last token's logits are computed, since only they are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto
from penstock.models.block_weights import BITS, BLOCK, BlockWeights, block_weights, joined
from penstock.models.export import OPSET
from penstock.models.gguf_file import EMBEDDINGS, HEAD, Bytes, Floats, LlamaFile
from penstock.models.graph_writer import CONTRIB, GraphWriter, Shape

ACTIVATIONS_IN_FLOAT = 1
"""An `accuracy_level` of `MatMulNBits`."""
PAST_NAMES = ("past_key_values.{}.key", "past_key_values.{}.value")
PRESENT_NAMES = ("present.{}.key", "present.{}.value")


def llama_graph(file: LlamaFile, context: int) -> onnx.ModelProto:
    """The graph from token ids, mask and key-value cache to logits and the longer cache.

    Args:
        context: tokens for whose positions there are rotary embeddings.
    """
    return _LlamaWriter(file, context).write()


class _LlamaWriter:
    def __init__(self, file: LlamaFile, context: int) -> None:
        self._file = file
        self._sizes = file.sizes
        self._context = context
        self._graph = GraphWriter()
        self._sums: dict[str, str] = {}
        """Names of the sums of blocks by the name of what is summed."""

    def write(self) -> onnx.ModelProto:
        hidden = self._embeddings()
        lengths = self._lengths()
        angles = self._angles()
        normed, residual = self._first_norm("blk.0.attn_norm", hidden), hidden
        for number in range(self._sizes.layers):
            layer = f"blk.{number}"
            attended = self._attention(number, normed, [*lengths, *angles])
            normed, residual = self._norm(f"{layer}.ffn_norm", attended, residual)
            inner = self._feed_forward(layer, normed)
            is_last = number + 1 == self._sizes.layers
            following = "output_norm" if is_last else f"blk.{number + 1}.attn_norm"
            normed, residual = self._norm(following, inner, residual)
        self._logits(normed)
        return self._model()

    def _model(self) -> onnx.ModelProto:
        sizes = self._sizes
        past: Shape = ("rows", sizes.kv_heads, "past", sizes.head_size)
        present: Shape = ("rows", sizes.kv_heads, "total", sizes.head_size)
        layers = range(sizes.layers)
        inputs: dict[str, tuple[int, Shape]] = {
            "input_ids": (TensorProto.INT64, ("rows", "length")),
            "attention_mask": (TensorProto.INT64, ("rows", "total")),
        }
        outputs: dict[str, tuple[int, Shape]] = {
            "logits": (TensorProto.FLOAT, ("rows", 1, sizes.vocabulary))
        }
        for number in layers:
            inputs |= {name.format(number): (TensorProto.FLOAT, past) for name in PAST_NAMES}
            outputs |= {name.format(number): (TensorProto.FLOAT, present) for name in PRESENT_NAMES}
        return self._graph.model("llama", inputs, outputs, OPSET)

    def _vector(self, name: str) -> str:
        return self._graph.constant(name, self._file.vectors[name])

    def _embeddings(self) -> str:
        """The tokens' embeddings, from the head's own weights where they are the same."""
        matrix = self._file.matrices[EMBEDDINGS]
        parts = block_weights(matrix)
        if any(part.middles is not None for part in parts):
            halves = matrix.dequantised().astype(np.float16)
            table = self._graph.constant(f"{EMBEDDINGS}.halves", halves)
            rows = self._graph.node("Gather", [table, "input_ids"], "embeddings.halves")
            return self._graph.node("Cast", [rows], "embeddings", to=TensorProto.FLOAT)
        return self._sum(
            "embeddings",
            [self._gathered(number, part) for number, part in enumerate(parts)],
        )

    def _gathered(self, number: int, part: BlockWeights) -> str:
        steps, *others = self._constants(f"{EMBEDDINGS}.{number}", part)
        size = np.array([part.outputs, part.blocks * BLOCK * BITS // 8])
        shape = self._graph.constant("embeddings.shape", size)
        table = self._graph.node("Reshape", [steps, shape], f"embeddings.{number}.table")
        return self._graph.node(
            "GatherBlockQuantized",
            [table, "input_ids", *others],
            f"embeddings.{number}",
            CONTRIB,
            bits=BITS,
            block_size=BLOCK,
            gather_axis=0,
            quantize_axis=1,
        )

    def _lengths(self) -> tuple[str, str]:
        """Of each row the position of its last token, and the length of the longest row."""
        graph = self._graph
        axis = graph.constant("axis.tokens", np.array([1]))
        mask = graph.node("Cast", ["attention_mask"], "mask", to=TensorProto.INT32)
        tokens = graph.node("ReduceSum", [mask, axis], "mask.tokens", keepdims=0)
        one = graph.constant("one", np.array([1], dtype=np.int32))
        last = graph.node("Sub", [tokens, one], "mask.last")
        shape = graph.node("Shape", ["attention_mask"], "mask.shape")
        index = graph.constant("index.length", np.array(1))
        length = graph.node("Gather", [shape, index], "mask.length.int64")
        return last, graph.node("Cast", [length], "mask.length", to=TensorProto.INT32)

    def _angles(self) -> tuple[str, str]:
        """Cosines and sines of the rotary embeddings."""
        angles = np.outer(np.arange(self._context), self._file.rope_frequencies())
        return (
            self._graph.constant("rope.cosines", np.cos(angles).astype(np.float32)),
            self._graph.constant("rope.sines", np.sin(angles).astype(np.float32)),
        )

    def _first_norm(self, name: str, hidden: str) -> str:
        return self._graph.node(
            "SimplifiedLayerNormalization",
            [hidden, self._vector(f"{name}.weight")],
            name,
            axis=-1,
            epsilon=self._sizes.epsilon,
            stash_type=1,
        )

    def _norm(self, name: str, summand: str, residual: str) -> tuple[str, str]:
        """The norm of the sum, and the sum."""
        outputs = self._graph.nodes(
            "SkipSimplifiedLayerNormalization",
            [summand, residual, self._vector(f"{name}.weight")],
            [name, "", "", f"{name}.sum"],
            CONTRIB,
            epsilon=self._sizes.epsilon,
        )
        return outputs[0], outputs[3]

    def _attention(self, number: int, normed: str, lengths_and_angles: Sequence[str]) -> str:
        layer = f"blk.{number}"
        parts = [f"{layer}.attn_{part}.weight" for part in ("q", "k", "v")]
        together = joined([block_weights(self._file.matrices[part]) for part in parts])
        if together is not None:
            name = f"{layer}.attn_qkv"
            inputs = [self._product(name, normed, together, name), "", ""]
        else:
            inputs = [self._apply(part.removesuffix(".weight"), normed) for part in parts]
        past, present = (
            [name.format(number) for name in names] for names in (PAST_NAMES, PRESENT_NAMES)
        )
        attended = self._graph.nodes(
            "GroupQueryAttention",
            [*inputs, *past, *lengths_and_angles],
            [f"{layer}.attn", *present],
            CONTRIB,
            num_heads=self._sizes.heads,
            kv_num_heads=self._sizes.kv_heads,
            do_rotary=1,
            rotary_interleaved=1,
        )
        return self._apply(f"{layer}.attn_output", attended[0])

    def _feed_forward(self, layer: str, normed: str) -> str:
        gate = self._apply(f"{layer}.ffn_gate", normed)
        up = self._apply(f"{layer}.ffn_up", normed)
        share = self._graph.node("Sigmoid", [gate], f"{layer}.ffn_sigmoid")
        active = self._graph.node("Mul", [gate, share], f"{layer}.ffn_silu")
        inner = self._graph.node("Mul", [active, up], f"{layer}.ffn_inner")
        return self._apply(f"{layer}.ffn_down", inner)

    def _logits(self, normed: str) -> None:
        last = self._graph.constant("index.last", np.array([-1]))
        hidden = self._graph.node("Gather", [normed, last], "output.last", axis=1)
        name = HEAD if HEAD in self._file.matrices else EMBEDDINGS
        self._product("logits", hidden, block_weights(self._file.matrices[name]), name)

    def _apply(self, name: str, inputs: str) -> str:
        matrix = f"{name}.weight"
        return self._product(name, inputs, block_weights(self._file.matrices[matrix]), matrix)

    def _product(self, name: str, inputs: str, parts: Sequence[BlockWeights], matrix: str) -> str:
        """A product with the sum of the parts; `matrix` names the constants."""
        summands: list[str] = []
        for number, part in enumerate(parts):
            constants = self._constants(f"{matrix}.{number}", part)
            product = self._graph.node(
                "MatMulNBits",
                [inputs, *constants],
                f"{name}.{number}",
                CONTRIB,
                N=part.outputs,
                K=part.blocks * BLOCK,
                bits=BITS,
                block_size=BLOCK,
                accuracy_level=ACTIVATIONS_IN_FLOAT,
            )
            summands.append(product)
            if part.middles is not None:
                middles = self._graph.constant(f"{matrix}.{number}.middles", part.middles.T)
                sums = self._block_sums(inputs, part.blocks)
                summands.append(
                    self._graph.node("MatMul", [sums, middles], f"{name}.{number}.shifts")
                )
        return self._sum(name, summands)

    def _constants(self, name: str, part: BlockWeights) -> list[str]:
        """The names of steps, scales and, where they are not the default, zeros."""
        arrays: dict[str, Bytes | Floats | None] = {
            "steps": part.packed(),
            "scales": part.scales,
            "zeros": part.zeros(),
        }
        return [
            self._graph.constant(f"{name}.{each}", array)
            for each, array in arrays.items()
            if array is not None
        ]

    def _sum(self, name: str, summands: Sequence[str]) -> str:
        """The sum of one or two summands, named `name`."""
        operator = "Add" if len(summands) == 2 else "Identity"
        return self._graph.node(operator, summands, name)

    def _block_sums(self, name: str, blocks: int) -> str:
        """The sums of each token's blocks of 32 numbers."""
        if name not in self._sums:
            shape = self._graph.constant(f"shape.{blocks}", np.array([0, 0, blocks, BLOCK]))
            axis = self._graph.constant("axis.block", np.array([3]))
            split = self._graph.node("Reshape", [name, shape], f"{name}.blocks")
            self._sums[name] = self._graph.node(
                "ReduceSum", [split, axis], f"{name}.sums", keepdims=0
            )
        return self._sums[name]
