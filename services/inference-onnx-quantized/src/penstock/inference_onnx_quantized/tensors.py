"""Tensors of the Open Inference Protocol (KServe v2) to arrays and back: datatypes, shapes, bytes.

Plain values: no model runs here and nothing is sent.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from penstock.api.inference.v1 import inference_pb2
from penstock.onnx.session import BFLOAT16, NUMPY_OF, Array, TensorSpec, from_bfloat16, to_bfloat16
from penstock.rpc.errors import invalid

NUMPY_DTYPES: dict[str, Any] = {
    "FP32": np.float32,
    "FP64": np.float64,
    "FP16": np.float16,
    "BF16": np.uint16,
    "INT64": np.int64,
    "INT32": np.int32,
    "INT16": np.int16,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "BOOL": np.bool_,
}
"""The numpy type of each datatype's bytes. numpy has no BF16, which is the upper half of an FP32:
its bytes are read as UINT16 and carried as FP32, which holds every value exactly.
"""
ITEM_BYTES = {name: np.dtype(dtype).itemsize for name, dtype in NUMPY_DTYPES.items()}
DATATYPES: dict[Any, str] = {
    np.dtype(dtype): name for name, dtype in NUMPY_DTYPES.items() if name != "BF16"
}
DATATYPE_OF = {
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(float16)": "FP16",
    "tensor(bfloat16)": "BF16",
    "tensor(int64)": "INT64",
    "tensor(int32)": "INT32",
    "tensor(int16)": "INT16",
    "tensor(int8)": "INT8",
    "tensor(uint64)": "UINT64",
    "tensor(uint32)": "UINT32",
    "tensor(uint16)": "UINT16",
    "tensor(uint8)": "UINT8",
    "tensor(bool)": "BOOL",
    "tensor(string)": "BYTES",
}
"""The datatype of an onnxruntime type."""


def spec_to_proto(spec: TensorSpec) -> inference_pb2.TensorSpec:
    """An input or output as the contract describes it; a type that the protocol does not have, such
    as a sequence, has no datatype.
    """
    return inference_pb2.TensorSpec(
        name=spec.name,
        datatype=DATATYPE_OF.get(spec.type, ""),
        shape=[-1 if size is None else size for size in spec.shape],
    )


def decode(datatype: str, shape: Sequence[int], data: bytes, field: str) -> Array:
    """The array of a tensor's raw bytes.

    Raises:
        Fault: INVALID_ARGUMENT naming the field, where datatype, shape and bytes do not fit
            together, or a float is NaN or infinite.
    """
    if min(shape, default=0) < 0:
        raise invalid(f"{field}.shape", "has a negative size")
    count = math.prod(shape)
    if datatype == "BYTES":
        return _decode_bytes(data, count, field).reshape(shape)
    dtype = NUMPY_DTYPES.get(datatype)
    if dtype is None:
        known = ", ".join([*NUMPY_DTYPES, "BYTES"])
        raise invalid(f"{field}.datatype", f"{datatype!r} is not known; use one of {known}")
    expected = count * ITEM_BYTES[datatype]
    if len(data) != expected:
        raise invalid(
            f"{field}.data",
            f"has {len(data)} bytes; shape {list(shape)} of {datatype} needs {expected}",
        )
    array: Array = np.frombuffer(data, dtype=dtype).reshape(shape)
    if datatype == "BF16":
        array = from_bfloat16(array)
    check_finite(array, f"{field}.data")
    return array


def check_finite(array: Array, field: str) -> None:
    """Refuse NaN and infinite floats.

    Raises:
        Fault: INVALID_ARGUMENT naming the field.
    """
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise invalid(field, "has NaN or infinite values")


def _decode_bytes(data: bytes, count: int, field: str) -> Array:
    """An array of `count` byte strings, each after its length in four bytes, little-endian."""
    elements: list[bytes] = []
    position = 0
    while position < len(data) and len(elements) <= count:
        if position + 4 > len(data):
            raise invalid(f"{field}.data", "ends inside a length")
        (size,) = struct.unpack_from("<I", data, position)
        position += 4 + size
        if position > len(data):
            raise invalid(f"{field}.data", "ends inside an element")
        elements.append(data[position - size : position])
    if len(elements) != count:
        raise invalid(f"{field}.data", f"has {len(elements)} elements; the shape needs {count}")
    array = np.empty(count, dtype=np.object_)
    array[:] = elements
    return array


def encode(array: Array, onnx_type: str = "") -> tuple[str, bytes]:
    """Datatype and raw bytes of an array.

    Args:
        onnx_type: the model's own type of it, since the array of a bfloat16 does not show it.
    """
    if onnx_type == BFLOAT16:
        return "BF16", to_bfloat16(array).tobytes()
    if array.dtype.kind in "OSU":
        elements = [
            item if isinstance(item, bytes) else str(item).encode() for item in array.ravel()
        ]
        return "BYTES", b"".join(struct.pack("<I", len(item)) + item for item in elements)
    return DATATYPES[array.dtype], np.ascontiguousarray(array).tobytes()


def match_spec(array: Array, spec: TensorSpec, field: str) -> Array:
    """The array as the model's input takes it: byte strings become text.

    Raises:
        Fault: INVALID_ARGUMENT where its type or shape is not that of the input.
    """
    expected = NUMPY_OF.get(spec.type)
    if expected is None or array.dtype != np.dtype(expected):
        datatype = DATATYPES.get(array.dtype, "BYTES")
        raise invalid(
            f"{field}.datatype", f"is {datatype}; the model's input {spec.name} is {spec.type}"
        )
    if not _has_shape(array, spec):
        shape = [-1 if size is None else size for size in spec.shape]
        raise invalid(
            f"{field}.shape", f"is {list(array.shape)}; the model's input {spec.name} is {shape}"
        )
    return _decode_text(array, field) if expected is np.object_ else array


def _has_shape(array: Array, spec: TensorSpec) -> bool:
    """Whether the array has the input's shape; a size of None may vary."""
    if len(array.shape) != len(spec.shape):
        return False
    pairs = zip(spec.shape, array.shape, strict=True)
    return all(size is None or size == actual for size, actual in pairs)


def _decode_text(array: Array, field: str) -> Array:
    """Byte strings as text: the runtime would take the Python spelling of bytes for their text."""
    texts = np.empty(array.shape, dtype=np.object_)
    try:
        texts.ravel()[:] = [item.decode() for item in array.ravel().tolist()]
    except UnicodeDecodeError:
        raise invalid(
            f"{field}.data", "has an element that is not UTF-8, which this model's strings are"
        ) from None
    return texts
