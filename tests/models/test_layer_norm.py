"""Fused layer norms written as additions and a norm again, for the CPU."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from penstock.models.layer_norm import unfuse

WIDTH = 8
Floats = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


def graph(inputs: list[str], outputs: list[str]) -> onnx.ModelProto:
    random = np.random.default_rng(1)
    weights = [
        numpy_helper.from_array(random.standard_normal(WIDTH).astype(np.float32), name)
        for name in ("scale", "shift", "bias")
    ]
    node = helper.make_node(
        "SkipLayerNormalization", inputs, outputs, "norm", domain="com.microsoft", epsilon=1e-3
    )
    shape = ["rows", "tokens", WIDTH]
    graph_inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "skip")
    ]
    graph_outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in outputs if name
    ]
    one_node_graph = helper.make_graph([node], "one", graph_inputs, graph_outputs, weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(one_node_graph, opset_imports=opsets, ir_version=8)


def run(model: onnx.ModelProto) -> list[Floats]:
    random = np.random.default_rng(2)
    inputs_by_name = {
        name: random.standard_normal((2, 3, WIDTH)).astype(np.float32) for name in ("x", "skip")
    }
    session = onnxruntime.InferenceSession(
        model.SerializeToString(),
        providers=["CPUExecutionProvider"],
        disabled_optimizers=["SkipLayerNormFusion"],
    )
    return list(session.run(None, inputs_by_name))


@pytest.mark.parametrize(
    "inputs",
    [
        ["x", "skip", "scale", "shift", "bias"],
        ["x", "skip", "scale", "shift"],
        ["x", "skip", "scale"],
    ],
)
@pytest.mark.parametrize("outputs", [["y"], ["y", "", "", "total"]])
def test_an_unfused_norm_computes_the_same(inputs: list[str], outputs: list[str]) -> None:
    model = graph(inputs, outputs)
    before = run(model)
    assert unfuse(model) == 1
    assert "SkipLayerNormalization" not in {node.op_type for node in model.graph.node}
    for old, new in zip(before, run(model), strict=True):
        np.testing.assert_allclose(new, old, atol=1e-5)


def test_a_norm_whose_mean_is_used_stays_as_it_is() -> None:
    model = graph(["x", "skip", "scale", "shift"], ["y", "mean"])
    before = model.SerializeToString(deterministic=True)
    assert unfuse(model) == 0
    assert model.SerializeToString(deterministic=True) == before
