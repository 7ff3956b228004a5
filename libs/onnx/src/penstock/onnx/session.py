"""The one wrapper of an onnxruntime session: providers, threads, names and types of inputs and outputs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as onnx_errors
from penstock.onnx.card import BadModel

log = logging.getLogger(__name__)

Array = np.ndarray[tuple[int, ...], np.dtype[np.generic]]
PREFERRED = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")

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
}


_REFUSED = (onnx_errors.InvalidArgument, onnx_errors.RuntimeException, onnx_errors.Fail)


class BadInput(Exception):
    """The values cannot be computed: an index beyond a table, shapes that do not go together."""


@dataclass(frozen=True)
class TensorSpec:
    """Name, onnxruntime type such as `tensor(int64)`, and shape; None stands for a size that may vary."""

    name: str
    type: str
    shape: tuple[int | None, ...]


class OnnxSession:
    """A loaded model. `run` may be called from several threads at once."""

    def __init__(self, path: Path, threads: int = 1, providers: Sequence[str] = ("CPUExecutionProvider",)) -> None:
        """Load a model.

        Args:
            path: the ONNX file.
            threads: threads inside one operator; rows are spread over sessions' callers, so 1 is right for small models.
            providers: execution providers, best first; those that are not here are left out with one warning.

        Raises:
            BadModel: the file is not a model that this runtime can load.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=usable(providers))
        except Exception as error:
            raise BadModel(f"{path.name}: onnxruntime cannot load it ({type(error).__name__})") from error
        self.inputs = tuple(_spec(node) for node in self._session.get_inputs())
        self.outputs = tuple(_spec(node) for node in self._session.get_outputs())
        self.provider: str = self._session.get_providers()[0]

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> list[Array]:
        """Run the model; arrays by input name, results in the order of `outputs` (all, when None).

        Raises:
            BadInput: types fit, but the model cannot compute these values.
        """
        try:
            return list(self._session.run(list(outputs) if outputs else None, dict(inputs)))
        except _REFUSED as error:
            raise BadInput("the model cannot compute these values (a shape or an index does not fit)") from error


def usable(wanted: Sequence[str]) -> list[str]:
    """The wanted providers that this build has, with CPU last; one warning names what is missing."""
    present = set(onnxruntime.get_available_providers())
    missing = [name for name in wanted if name not in present]
    if missing:
        log.warning("not available, so the CPU serves: %s (install the gpu extra)", ", ".join(missing))
    return [name for name in wanted if name in present and name != "CPUExecutionProvider"] + ["CPUExecutionProvider"]


def _spec(node: onnxruntime.NodeArg) -> TensorSpec:
    return TensorSpec(node.name, node.type, tuple(size if isinstance(size, int) else None for size in node.shape))
