"""Quantisation of an ONNX file: to INT8 with dynamic or static ranges, or to FP16.

Dynamic ranges of activations are computed while the model runs; static ones come from calibration
texts.
"""

from __future__ import annotations

import contextlib
import logging
import platform
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx
import onnxruntime

CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8")


def cpu_features() -> list[str]:
    """This machine's instruction sets for INT8; empty where Linux's /proc/cpuinfo is not there."""
    path = Path("/proc/cpuinfo")
    text = path.read_text() if path.exists() else ""
    flag_lines = [line for line in text.splitlines() if line.startswith("flags")]
    if not flag_lines:
        return []
    flags = flag_lines[0].partition(":")[2].split()
    return [flag for flag in CPU_FLAGS if flag in flags]


def saturates(features: Sequence[str]) -> bool:
    """Whether sums of 8-bit products saturate on such a CPU: AVX2 and AVX-512 without VNNI add
    pairs of products in 16 bits.
    """
    return not {"avx512_vnni", "avx_vnni", "amx_int8"} & set(features)


@dataclass(frozen=True)
class Recipe:
    """How to quantise: weights to 8 bits, or for GPUs to 16 ("fp16").

    `reduce_range`: whether weights stay within 7 bits; None: what this CPU needs.
    """

    kind: Literal["dynamic", "static", "fp16"] = "dynamic"
    per_channel: bool = True
    symmetric: bool = True
    reduce_range: bool | None = None

    @property
    def uses_seven_bits(self) -> bool:
        """Whether weights stay within 7 bits, so that sums of two products cannot saturate."""
        if self.reduce_range is None:
            return saturates(cpu_features())
        return self.reduce_range

    def describe(self) -> str:
        """The recipe in words, for the card."""
        if self.kind == "fp16":
            return "FP16, inputs and outputs in FP32"
        kind = "static INT8 QDQ" if self.kind == "static" else "dynamic INT8"
        scales = "per channel" if self.per_channel else "per tensor"
        zero = "symmetric" if self.symmetric else "asymmetric"
        return f"{kind}, {scales}, {zero}, reduce_range {self.uses_seven_bits}"

    def options(self) -> dict[str, Any]:
        """The arguments that both of onnxruntime's quantisers take."""
        from onnxruntime.quantization import QuantType

        return {
            "weight_type": QuantType.QInt8 if self.symmetric else QuantType.QUInt8,
            "per_channel": self.per_channel,
            "reduce_range": self.uses_seven_bits,
        }

    def extra_options(self) -> dict[str, Any]:
        """The `extra_options` that both quantisers take."""
        return {"DefaultTensorType": onnx.TensorProto.FLOAT, "WeightSymmetric": self.symmetric}


def quantize_dynamic(
    source: Path, target: Path, recipe: Recipe = Recipe(), keep_float: Sequence[str] = ()
) -> None:
    """Write `source` to `target` with weights in INT8 and activations scaled while running.

    Args:
        keep_float: names of nodes that stay in floating point.
    """
    from onnxruntime.quantization import quantize_dynamic as dynamic

    with _silent():
        dynamic(
            str(source),
            str(target),
            nodes_to_exclude=list(keep_float),
            extra_options={**recipe.extra_options(), "MatMulConstBOnly": True},
            **recipe.options(),
        )


class _BatchReader:
    """Calibration batches in the form that onnxruntime reads."""

    def __init__(self, batches: Iterable[dict[str, Any]]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        return next(self._batches, None)


def quantize_static(
    source: Path,
    target: Path,
    batches: Iterable[dict[str, Any]],
    recipe: Recipe = Recipe("static"),
    keep_float: Sequence[str] = (),
) -> None:
    """Write `source` to `target` with weights and activations in INT8, as QDQ nodes, and with the
    activations' ranges from calibration batches.

    Args:
        batches: inputs by name.
        keep_float: names of nodes that stay in floating point.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType
    from onnxruntime.quantization import quantize_static as static

    reader = type("Reader", (_BatchReader, CalibrationDataReader), {})(batches)
    with _silent():
        static(
            str(source),
            str(target),
            reader,
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            op_types_to_quantize=["MatMul", "Gemm", "Conv"],
            nodes_to_exclude=list(keep_float),
            extra_options=recipe.extra_options(),
            **recipe.options(),
        )


def to_fp16(source: Path, target: Path, keep_float: Sequence[str] = ()) -> None:
    """Write `source` to `target` with weights and computing in FP16, for the CUDA provider; inputs
    and outputs keep their types.

    Args:
        keep_float: names of nodes that stay in floating point.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    with _silent(), warnings.catch_warnings():
        # It warns of each weight that is too small for FP16; the comparison judges that better.
        warnings.simplefilter("ignore")
        model = convert_float_to_float16(
            _with_types(onnx.load(str(source))),
            keep_io_types=True,
            disable_shape_infer=True,
            node_block_list=list(keep_float),
        )
        OnnxModel(model).topological_sort()  # The converter puts its casts at the end.
    onnx.save(model, str(target))


def _with_types(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the type of each value between its nodes, which says where the converter has
    to cast. onnx's own inference stops at the runtime's fused operators, so the runtime is asked.
    """
    names = {name for node in model.graph.node for name in node.output if name}
    names -= {value.name for value in model.graph.output}
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(names))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        shown.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    typed = onnx.ModelProto()
    typed.CopyFrom(model)
    del typed.graph.value_info[:]
    for value in session.get_outputs():
        if value.name in names and value.type in _ELEMENTS:
            typed.graph.value_info.append(
                onnx.helper.make_tensor_value_info(value.name, _ELEMENTS[value.type], None)
            )
    return typed


_ELEMENTS = {
    f"tensor({onnx.TensorProto.DataType.Name(number).lower()})": number
    for number in onnx.TensorProto.DataType.values()
}
"""The runtime's name of a tensor's type → its number in ONNX."""


def matmul_nodes(source: Path) -> list[str]:
    """Names of the nodes with weights that quantisation would change."""
    graph = onnx.load(str(source), load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    quantised = ("MatMul", "Attention", "Gemm", "Gather", "EmbedLayerNormalization")
    return [
        node.name for node in graph.node if node.op_type in quantised and weights & set(node.input)
    ]


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Silence the quantiser, which logs advice through the root logger; errors are raised."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def machine() -> dict[str, str]:
    """Processor, its instruction sets for INT8, and the versions of Python and onnxruntime."""
    return {
        "processor": platform.machine(),
        "features": " ".join(cpu_features()),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
    }
