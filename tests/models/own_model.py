"""A tiny text model as a user might bring it: an ONNX file and a tokenizer beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

WORDS = [
    "[UNK]",
    "[CLS]",
    "[SEP]",
    *[
        "the",
        "invoice",
        "of",
        "march",
        "a",
        "broken",
        "coffee",
        "grinder",
        "flight",
        "from",
        "oslo",
        "to",
        "lisbon",
        "what",
        "do",
        "we",
    ],
]


def write_tokenizer(path: Path) -> None:
    """Write a tokenizer of whole words in lower case."""
    tokenizer = Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(path))


def write_onnx(
    path: Path, width: int = 4, ids: str = "input_ids", operator: str = "ReduceMean"
) -> None:
    """Write a graph from `ids` (rows, length) to `answer` (rows, width): the mean of word vectors,
    through one matrix.
    """
    rng = np.random.default_rng(5)
    weights = {
        "words": rng.normal(size=(len(WORDS), 16)).astype(np.float32),
        "matrix": rng.normal(size=(16, width)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["words", ids], ["word_vectors"]),
        helper.make_node(operator, ["word_vectors"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["mean", "matrix"], ["answer"], name="matrix"),
    ]
    inputs = [helper.make_tensor_value_info(ids, TensorProto.INT64, ["rows", "length"])]
    outputs = [helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["rows", width])]
    constants = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "own", inputs, outputs, initializer=constants)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        str(path),
    )
