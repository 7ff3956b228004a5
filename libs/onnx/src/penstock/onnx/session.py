"""An onnxruntime session: execution providers, threads, and the names and types of its tensors."""

from __future__ import annotations

import ctypes
import functools
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as onnx_errors
from penstock.onnx.card import BadModel

log = logging.getLogger(__name__)

Array = np.ndarray[tuple[int, ...], np.dtype[np.generic]]
Options: TypeAlias = "onnxruntime.RunOptions | None"
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
"""The numpy type that carries values of an onnxruntime type. numpy has no bfloat16, which is the
upper half of a float32: float32 holds every value exactly.
"""
BFLOAT16 = "tensor(bfloat16)"
BFLOAT16_NUMBER = 16
"""The type's number in ONNX."""

SLOW_FUSIONS = ["SkipLayerNormFusion"]
"""Graph optimisations of onnxruntime whose result a CPU computes more slowly: its fused layer norm
goes element by element.
"""

_INPUT_ERRORS = (
    onnx_errors.InvalidArgument,
    onnx_errors.RuntimeException,
    onnx_errors.Fail,
    RuntimeError,
)


class BadInput(Exception):
    """The values cannot be computed: an index is beyond a table, or shapes do not fit together."""


@dataclass(frozen=True)
class TensorSpec:
    """An input or output: its name, its onnxruntime type such as `tensor(int64)`, and its shape,
    where None stands for a size that may vary.
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
            threads: threads inside one operator. Callers run rows side by side in threads of their
                own, so 1 is right for small models.
            providers: execution providers, the best first; those that this build lacks are left
                out with one warning.
            bind: whether to run with I/O binding; None: only where a GPU serves.

        Raises:
            BadModel: the file is not a model that this runtime can load.
        """
        self._session = _open(path, threads, providers)
        self.inputs = tuple(_spec(node) for node in self._session.get_inputs())
        self.outputs = tuple(_spec(node) for node in self._session.get_outputs())
        self.provider: str = self._session.get_providers()[0]
        if self.provider == CPU and any(name != CPU for name in available_providers(providers)):
            _warn_once(
                "a GPU provider is installed but could not start, so the CPU serves; see the "
                "driver and its libraries"
            )
        self._types = {spec.name: spec.type for spec in (*self.inputs, *self.outputs)}
        has_strings = "tensor(string)" in self._types.values()
        has_bfloat16 = BFLOAT16 in self._types.values()
        if has_strings and has_bfloat16:
            raise BadModel(
                f"{path.name}: mixes strings and bfloat16, which the runtime cannot be given "
                "together"
            )
        is_bound = self.provider != CPU if bind is None else bind
        self._is_bound = is_bound and not has_strings
        self._needs_ort_values = has_bfloat16
        self._freeing = _freeing_options(self.provider)

    def run(
        self,
        inputs: Mapping[str, Array],
        outputs: Sequence[str] | None = None,
        frees_memory: bool = False,
    ) -> list[Array]:
        """The model's outputs for these inputs.

        Args:
            inputs: arrays by input name.
            outputs: names of the outputs, in the order of the result; None: all.
            frees_memory: whether to give back afterwards what the runtime's arena has grown by. It
                would keep as much as its largest run took, but a small run that gives memory back
                takes a tenth longer.

        Raises:
            BadInput: types fit, but the model cannot compute these values.
        """
        names = list(outputs) if outputs else [spec.name for spec in self.outputs]
        options = self._freeing if frees_memory else None
        try:
            if self._is_bound:
                return self._run_bound(inputs, names, options)
            if self._needs_ort_values:
                return self._run_ort_values(inputs, names, options)
            return list(self._session.run(names, dict(inputs), options))
        except _INPUT_ERRORS as error:
            raise BadInput(
                "the model cannot compute these values (a shape or an index does not fit)"
            ) from error

    def _run_bound(
        self, inputs: Mapping[str, Array], names: Sequence[str], options: Options
    ) -> list[Array]:
        """Run with I/O binding: inputs are copied to the device once, and outputs back once."""
        binding = self._session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, self._to_ort_value(name, value))
        for name in names:
            binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(binding, options)
        return [
            self._from_ort_value(name, value)
            for name, value in zip(names, binding.get_outputs(), strict=True)
        ]

    def _run_ort_values(
        self, inputs: Mapping[str, Array], names: Sequence[str], options: Options
    ) -> list[Array]:
        """Run on the runtime's own values: numpy arrays cannot say that they are bfloat16."""
        ort_inputs = {name: self._to_ort_value(name, value) for name, value in inputs.items()}
        outputs = self._session.run_with_ort_values(list(names), ort_inputs, options)
        return [
            self._from_ort_value(name, value) for name, value in zip(names, outputs, strict=True)
        ]

    def _to_ort_value(self, name: str, value: Array) -> onnxruntime.OrtValue:
        if self._types.get(name) != BFLOAT16:
            return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value))
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(
            to_bfloat16(value), BFLOAT16_NUMBER
        )

    def _from_ort_value(self, name: str, value: onnxruntime.OrtValue) -> Array:
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
    """The wanted execution providers that this build has, with CPU last.

    Warns of those that it lacks, once in the life of the process.
    """
    present = set(onnxruntime.get_available_providers())
    missing = [name for name in wanted if name not in present]
    if missing:
        _warn_once(
            f"not available, so the CPU serves: {', '.join(missing)} (install the gpu extra)"
        )
    return [name for name in wanted if name in present and name != CPU] + [CPU]


def with_provider_options(providers: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """Each provider with its options; TensorRT may compute in FP16 where that is exact enough."""
    return [(name, PROVIDER_OPTIONS.get(name, {})) for name in providers]


def _open(path: Path, threads: int, providers: Sequence[str]) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    chosen = with_provider_options(available_providers(providers))
    is_cpu_only = len(chosen) == 1
    try:
        return onnxruntime.InferenceSession(
            str(path),
            options,
            providers=chosen,
            disabled_optimizers=SLOW_FUSIONS if is_cpu_only else None,
        )
    except Exception as error:
        raise BadModel(
            f"{path.name}: onnxruntime cannot load it ({type(error).__name__})"
        ) from error


def _freeing_options(provider: str) -> onnxruntime.RunOptions:
    """Options of a run after which the arenas give back what they have grown by."""
    options = onnxruntime.RunOptions()
    arenas = "cpu:0" if provider == CPU else "cpu:0;gpu:0"
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", arenas)
    return options


@functools.cache
def _warn_once(text: str) -> None:
    log.warning("%s", text)


def _spec(node: onnxruntime.NodeArg) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) else None for size in node.shape)
    return TensorSpec(node.name, node.type, shape)
