"""KServe v2 tensors to arrays and back: datatypes, shapes, bytes.

No model and no transport lives here.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from penstock.onnx.session import BFLOAT16, NUMPY_OF, Array, TensorSpec, from_bfloat16, to_bfloat16
from penstock.rpc.errors import invalid

DTYPES: dict[str, Any] = {
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
SIZES = {name: np.dtype(dtype).itemsize for name, dtype in DTYPES.items()}
NAMES: dict[Any, str] = {np.dtype(dtype): name for name, dtype in DTYPES.items() if name != "BF16"}
RAW_ONLY = ("FP16", "BF16")
"""These have no typed form. numpy has no BF16: its upper half of an FP32 is carried to FP32, which
holds every value exactly.
"""


def decode(datatype: str, shape: Sequence[int], data: bytes, field: str) -> Array:
    """The array of a tensor.

    Raises:
        Fault: INVALID_ARGUMENT naming the field, where datatype, shape and bytes do not fit, or a
            float is NaN or infinite.
    """
    if min(shape, default=0) < 0:
        raise invalid(f"{field}.shape", "has a negative size")
    count = math.prod(shape)
    if datatype == "BYTES":
        return _decode_bytes(data, count, field).reshape(shape)
    dtype = DTYPES.get(datatype)
    if dtype is None:
        raise invalid(
            f"{field}.datatype",
            f"{datatype!r} is not known; use one of {', '.join([*DTYPES, 'BYTES'])}",
        )
    expected = count * SIZES[datatype]
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
    """Raises Fault INVALID_ARGUMENT naming the field when a float is NaN or infinite."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise invalid(field, "has NaN or infinite values")


def _decode_bytes(data: bytes, count: int, field: str) -> Array:
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


def encode(array: Array, kind: str = "") -> tuple[str, bytes]:
    """Datatype and bytes of an array; `kind` is the model's own type of it, where the array alone
    does not tell.
    """
    if kind == BFLOAT16:
        return "BF16", to_bfloat16(array).tobytes()
    if array.dtype.kind in "OSU":
        elements = [
            item if isinstance(item, bytes) else str(item).encode() for item in array.ravel()
        ]
        return "BYTES", b"".join(struct.pack("<I", len(item)) + item for item in elements)
    return NAMES[array.dtype], np.ascontiguousarray(array).tobytes()


def fit(array: Array, spec: TensorSpec, field: str) -> Array:
    """The array as the model wants it.

    Raises:
        Fault: INVALID_ARGUMENT where type or shape is another one.
    """
    wanted = NUMPY_OF.get(spec.type)
    if wanted is None or array.dtype != np.dtype(wanted):
        raise invalid(
            f"{field}.datatype",
            f"is {NAMES.get(array.dtype, 'BYTES')}; the model's input {spec.name} is {spec.type}",
        )
    if len(array.shape) != len(spec.shape) or any(
        size is not None and size != given
        for size, given in zip(spec.shape, array.shape, strict=True)
    ):
        shape = [-1 if size is None else size for size in spec.shape]
        raise invalid(
            f"{field}.shape", f"is {list(array.shape)}; the model's input {spec.name} is {shape}"
        )
    return _strings(array, field) if wanted is np.object_ else array


def _strings(array: Array, field: str) -> Array:
    """Bytes as text: the runtime would otherwise take the Python spelling of the bytes."""
    texts = np.empty(array.shape, dtype=np.object_)
    try:
        texts.ravel()[:] = [item.decode() for item in array.ravel().tolist()]
    except UnicodeDecodeError:
        raise invalid(
            f"{field}.data", "has an element that is not UTF-8, which this model's strings are"
        ) from None
    return texts
