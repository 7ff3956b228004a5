"""Small ONNX model folders for tests: outputs that equal the inputs, in any datatype, and NaN."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import onnx
from onnx import TensorProto, helper
from penstock.onnx.card import ModelCard, checksum, write_card

KINDS: Mapping[str, int] = {
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "FP16": TensorProto.FLOAT16,
    "INT64": TensorProto.INT64,
    "INT32": TensorProto.INT32,
    "INT16": TensorProto.INT16,
    "INT8": TensorProto.INT8,
    "UINT8": TensorProto.UINT8,
    "BOOL": TensorProto.BOOL,
    "BYTES": TensorProto.STRING,
}
BFLOAT16: Mapping[str, int] = {"BF16": TensorProto.BFLOAT16}
"""Apart from the others, because the runtime takes no strings beside it."""


def write_identity(
    folder: Path, name: str, kinds: Mapping[str, int] = KINDS, padding: int = 0
) -> None:
    """Write a model folder whose input `in_X` comes back as `out_X`, shape (rows, 3), for each
    datatype X.

    Args:
        padding: bytes that the file is larger.
    """
    nodes = [helper.make_node("Identity", [f"in_{kind}"], [f"out_{kind}"]) for kind in kinds]
    inputs = [
        helper.make_tensor_value_info(f"in_{kind}", number, ["rows", 3])
        for kind, number in kinds.items()
    ]
    outputs = [
        helper.make_tensor_value_info(f"out_{kind}", number, ["rows", 3])
        for kind, number in kinds.items()
    ]
    ballast = (
        [helper.make_tensor("ballast", TensorProto.UINT8, [padding], bytes(padding), raw=True)]
        if padding
        else []
    )
    graph = helper.make_graph(nodes, "identity", inputs, outputs, initializer=ballast)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folder.mkdir(parents=True)
    onnx.save(model, str(folder / "model.onnx"))
    files = {"model.onnx": checksum(folder / "model.onnx")}
    write_card(
        folder,
        ModelCard(
            name=name, version=folder.name, tasks=("infer",), model="model.onnx", files=files
        ),
    )


def write_nan(folder: Path, tokenizer: Path) -> None:
    """Write a model folder of a text model whose vectors are 0/0."""
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["numbers", "numbers"], ["zeros"]),
        helper.make_node("Div", ["zeros", "zeros"], ["undefined"]),
        helper.make_node("ReduceMean", ["undefined"], ["vectors"], axes=[1], keepdims=1),
    ]
    inputs = [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["rows", "length"])]
    outputs = [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["rows", 1])]
    graph = helper.make_graph(nodes, "nan", inputs, outputs)
    folder.mkdir(parents=True)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        str(folder / "model.onnx"),
    )
    shutil.copy(tokenizer, folder / "tokenizer.json")
    files = {name: checksum(folder / name) for name in ("model.onnx", "tokenizer.json")}
    card = ModelCard(
        name="broken",
        version="1",
        tasks=("embed",),
        model="model.onnx",
        tokenizer="tokenizer.json",
        max_input_tokens=256,
        files=files,
    )
    write_card(folder, card)
