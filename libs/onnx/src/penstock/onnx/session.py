"""The one wrapper of an onnxruntime session: providers, threads, names and types of inputs and
outputs.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as onnx_errors
from penstock.onnx.card import BadModel

log = logging.getLogger(__name__)

Array = np.ndarray[tuple[int, ...], np.dtype[np.generic]]
CPU = "CPUExecutionProvider"
PROVIDER_OPTIONS = {"TensorrtExecutionProvider": {"trt_fp16_enable": "1"}}

NUMPY_OF = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int16)": np.int16,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
    "tensor(bfloat16)": np.float32,
}
"""How values of each type are carried. numpy has no bfloat16: it is the upper half of a float32,
which holds every value exactly.
"""
BFLOAT16, BFLOAT16_NUMBER = "tensor(bfloat16)", 16

SLOW_FUSIONS = ["SkipLayerNormFusion"]
"""What onnxruntime does to a graph on loading and a CPU then computes more slowly: its fused layer
norm goes element by element.
"""

_REFUSED = (
    onnx_errors.InvalidArgument,
    onnx_errors.RuntimeException,
    onnx_errors.Fail,
    RuntimeError,
)


class BadInput(Exception):
    """The values cannot be computed: an index beyond a table, shapes that do not go together."""


@dataclass(frozen=True)
class TensorSpec:
    """Name, onnxruntime type such as `tensor(int64)`, and shape; None stands for a size that may
    vary.
    """

    name: str
    type: str
    shape: tuple[int | None, ...]


class OnnxSession:
    """A loaded model. `run` may be called from several threads at once."""

    def __init__(
        self,
        path: Path,
        threads: int = 1,
        providers: Sequence[str] = (CPU,),
        bind: bool | None = None,
    ) -> None:
        """Load a model.

        Args:
            path: the ONNX file.
            threads: threads inside one operator; rows are spread over sessions' callers, so 1 is
                right for small models.
            providers: execution providers, best first; those that are not here are left out with
                one warning.
            bind: run with I/O binding; None means where a GPU serves.

        Raises:
            BadModel: the file is not a model that this runtime can load.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            chosen = with_provider_options(available_providers(providers))
            self._session = onnxruntime.InferenceSession(
                str(path),
                options,
                providers=chosen,
                disabled_optimizers=SLOW_FUSIONS if len(chosen) == 1 else None,
            )
        except Exception as error:
            raise BadModel(
                f"{path.name}: onnxruntime cannot load it ({type(error).__name__})"
            ) from error
        self.inputs = tuple(_spec(node) for node in self._session.get_inputs())
        self.outputs = tuple(_spec(node) for node in self._session.get_outputs())
        self.provider: str = self._session.get_providers()[0]
        if self.provider == CPU and any(name != CPU for name in available_providers(providers)):
            _warn(
                "a GPU provider is installed but could not start, so the CPU serves; see the "
                "driver and its libraries"
            )
        self._types = {spec.name: spec.type for spec in (*self.inputs, *self.outputs)}
        strings, halves = (
            "tensor(string)" in self._types.values(),
            BFLOAT16 in self._types.values(),
        )
        if strings and halves:
            raise BadModel(
                f"{path.name}: mixes strings and bfloat16, which the runtime cannot be given "
                "together"
            )
        self._bound = (self.provider != CPU if bind is None else bind) and not strings
        self._by_values = halves

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> list[Array]:
        """Run the model; arrays by input name, results in the order of `outputs` (all, when None).

        Raises:
            BadInput: types fit, but the model cannot compute these values.
        """
        names = list(outputs) if outputs else [spec.name for spec in self.outputs]
        try:
            if self._bound:
                return self._run_bound(inputs, names)
            if self._by_values:
                return self._run_values(inputs, names)
            return list(self._session.run(names, dict(inputs)))
        except _REFUSED as error:
            raise BadInput(
                "the model cannot compute these values (a shape or an index does not fit)"
            ) from error

    def _run_bound(self, inputs: Mapping[str, Array], names: Sequence[str]) -> list[Array]:
        """With I/O binding: inputs are copied to the device once, outputs once back, and nothing in
        between.
        """
        binding = self._session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, self._value(name, value))
        for name in names:
            binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(binding)
        return [
            self._array(name, value)
            for name, value in zip(names, binding.get_outputs(), strict=True)
        ]

    def _run_values(self, inputs: Mapping[str, Array], names: Sequence[str]) -> list[Array]:
        given = {name: self._value(name, value) for name, value in inputs.items()}
        answers = self._session.run_with_ort_values(list(names), given)
        return [self._array(name, value) for name, value in zip(names, answers, strict=True)]

    def _value(self, name: str, value: Array) -> onnxruntime.OrtValue:
        if self._types.get(name) != BFLOAT16:
            return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value))
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(
            to_bfloat16(value), BFLOAT16_NUMBER
        )

    def _array(self, name: str, value: onnxruntime.OrtValue) -> Array:
        if self._types[name] != BFLOAT16:
            array: Array = value.numpy()
            return array
        shape = tuple(value.shape())
        if not math.prod(shape):
            return np.zeros(shape, dtype=np.float32)
        memory = (ctypes.c_uint16 * math.prod(shape)).from_address(value.data_ptr())
        return from_bfloat16(np.ctypeslib.as_array(memory).copy()).reshape(shape)


def to_bfloat16(values: Array) -> Array:
    """The upper halves of float32 values, as unsigned 16-bit numbers."""
    return (np.ascontiguousarray(values, dtype=np.float32).view(np.uint32) >> np.uint32(16)).astype(
        np.uint16
    )


def from_bfloat16(halves: Array) -> Array:
    """float32 values of which these are the upper halves."""
    return (halves.astype(np.uint32) << np.uint32(16)).view(np.float32)


def available_providers(wanted: Sequence[str]) -> list[str]:
    """The wanted providers that this build has, with CPU last; one warning in the life of the
    process names what is missing.
    """
    present = set(onnxruntime.get_available_providers())
    missing = [name for name in wanted if name not in present]
    if missing:
        _warn(f"not available, so the CPU serves: {', '.join(missing)} (install the gpu extra)")
    return [name for name in wanted if name in present and name != CPU] + [CPU]


def with_provider_options(providers: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """Each provider with its settings: TensorRT computes in FP16 where that is exact enough for
    it.
    """
    return [(name, PROVIDER_OPTIONS.get(name, {})) for name in providers]


@functools.cache
def _warn(text: str) -> None:
    log.warning("%s", text)


def _spec(node: onnxruntime.NodeArg) -> TensorSpec:
    return TensorSpec(
        node.name, node.type, tuple(size if isinstance(size, int) else None for size in node.shape)
    )
