"""Quantisation of an ONNX file to INT8: dynamic ranges, or static ones from calibration texts."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx

CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8")


def cpu_features() -> list[str]:
    """Instruction sets that matter to INT8 on this machine, of those that Linux names."""
    path = Path("/proc/cpuinfo")
    text = path.read_text() if path.exists() else ""
    flags = set(next((line.split(":", 1)[1] for line in text.splitlines() if line.startswith("flags")), "").split())
    return [flag for flag in CPU_FLAGS if flag in flags]


def reduce_range(features: Sequence[str]) -> bool:
    """True where 8-bit products saturate: AVX2 and AVX-512 without VNNI add pairs of products in 16 bits."""
    return not {"avx512_vnni", "avx_vnni", "amx_int8"} & set(features)


def quantize_dynamic(source: Path, target: Path, per_channel: bool = True, keep_float: Sequence[str] = ()) -> None:
    """Weights to INT8, activations scaled while running. `keep_float` names nodes that stay in floating point."""
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_dynamic as dynamic

    with _silent():
        dynamic(
            str(source),
            str(target),
            weight_type=QuantType.QInt8,
            per_channel=per_channel,
            reduce_range=False,
            nodes_to_exclude=list(keep_float),
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT, "MatMulConstBOnly": True},
        )


class _Feed:
    """Calibration batches in the form onnxruntime asks for."""

    def __init__(self, batches: Iterable[dict[str, Any]]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        return next(self._batches, None)


def quantize_static(
    source: Path,
    target: Path,
    batches: Iterable[dict[str, Any]],
    per_channel: bool = True,
    keep_float: Sequence[str] = (),
) -> None:
    """Weights and activations to INT8 as QDQ nodes, activation ranges from calibration batches."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType
    from onnxruntime.quantization import quantize_static as static

    reader = type("Reader", (_Feed, CalibrationDataReader), {})(batches)
    with _silent():
        static(
            str(source),
            str(target),
            reader,
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=per_channel,
            reduce_range=reduce_range(cpu_features()),
            op_types_to_quantize=["MatMul"],
            nodes_to_exclude=list(keep_float),
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )


def matmul_nodes(source: Path) -> list[str]:
    """Names of the nodes that quantisation would change, for the search of the ones that hurt."""
    graph = onnx.load(str(source), load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    quantised = ("MatMul", "Attention", "Gemm", "Gather", "EmbedLayerNormalization")
    return [node.name for node in graph.node if node.op_type in quantised and weights & set(node.input)]


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """The quantiser logs advice through the root logger; errors still come as exceptions."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
