"""Writes an ONNX graph node by node: for models whose graphs are made here from their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

CONTRIB = "com.microsoft"
"""Domain of onnxruntime's own operators."""
IR_VERSION = 8
Shape = Sequence[int | str]
"""Sizes, and names of those that vary."""


class GraphWriter:
    """Collects nodes and constants, and makes a model of them."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, array: np.ndarray[Any, Any]) -> str:
        """Add a constant, unless one of this name is there; returns its name."""
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def node(
        self, operator: str, inputs: Sequence[str], output: str, domain: str = "", **attributes: Any
    ) -> str:
        """Add a node with one output, whose name is the node's too; returns that name."""
        return self.nodes(operator, inputs, [output], domain, **attributes)[0]

    def nodes(
        self,
        operator: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        domain: str = "",
        **attributes: Any,
    ) -> Sequence[str]:
        """Add a node with several outputs, named for the first; returns the outputs' names."""
        node = helper.make_node(
            operator, inputs, outputs, name=outputs[0], domain=domain, **attributes
        )
        self._nodes.append(node)
        return outputs

    def model(
        self,
        name: str,
        inputs: Mapping[str, tuple[int, Shape]],
        outputs: Mapping[str, tuple[int, Shape]],
        opset: int,
    ) -> onnx.ModelProto:
        """The model; inputs and outputs have an element type of `onnx.TensorProto` and a shape."""
        given, computed = (
            [helper.make_tensor_value_info(each, *about) for each, about in side.items()]
            for side in (inputs, outputs)
        )
        graph = helper.make_graph(self._nodes, name, given, computed, [*self._constants.values()])
        opsets = [helper.make_opsetid("", opset), helper.make_opsetid(CONTRIB, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
