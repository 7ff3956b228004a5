"""The protocol's datatypes: how long an element is, and its values as bytes and back.

Raw contents are row-major and little-endian, which is the order of every machine that is served
here.
"""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Sequence
from typing import Any, NamedTuple

from penstock.rpc.errors import invalid
from penstock.service.purity import pure

Value = bool | int | float | bytes


class Datatype(NamedTuple):
    """One datatype. `code` is that of Python's `array`; `field` is where typed contents hold it."""

    name: str
    item_bytes: int
    code: str = ""
    field: str = ""


BYTES, BOOL = "BYTES", "BOOL"
DATATYPES = {
    each.name: each
    for each in (
        Datatype(BOOL, 1, "B", "bool_contents"),
        Datatype("INT8", 1, "b", "int_contents"),
        Datatype("INT16", 2, "h", "int_contents"),
        Datatype("INT32", 4, "i", "int_contents"),
        Datatype("INT64", 8, "q", "int64_contents"),
        Datatype("UINT8", 1, "B", "uint_contents"),
        Datatype("UINT16", 2, "H", "uint_contents"),
        Datatype("UINT32", 4, "I", "uint_contents"),
        Datatype("UINT64", 8, "Q", "uint64_contents"),
        Datatype("FP16", 2),
        Datatype("BF16", 2),
        Datatype("FP32", 4, "f", "fp32_contents"),
        Datatype("FP64", 8, "d", "fp64_contents"),
        Datatype(BYTES, 0, "", "bytes_contents"),
    )
}
"""By name. FP16 and BF16 have raw contents only; an element of BYTES has a length of its own."""


@pure
def known_datatype(name: str, field: str) -> Datatype:
    """The datatype of that name.

    Raises:
        Fault: INVALID_ARGUMENT naming the field.
    """
    datatype = DATATYPES.get(name)
    if datatype is None:
        raise invalid(f"{field}.datatype", f"{name!r} is not known; use one of {_names()}")
    return datatype


@pure
def pack(datatype: Datatype, values: Sequence[Any], field: str) -> bytes:
    """The raw contents of values.

    Raises:
        Fault: INVALID_ARGUMENT: the datatype has raw contents only, or does not hold a value.
    """
    if datatype.name == BYTES:
        return b"".join(_with_length(value, field) for value in values)
    if not datatype.code:
        raise invalid(
            f"{field}.datatype",
            f"{datatype.name} has no typed contents; send raw_input_contents or binary data",
        )
    if datatype.name == BOOL and not all(value in (False, True) for value in values):
        raise invalid(f"{field}.contents", "has a value that is neither false nor true")
    try:
        return array(datatype.code, values).tobytes()
    except (OverflowError, TypeError, ValueError):
        raise invalid(
            f"{field}.contents", f"has a value that {datatype.name} does not hold"
        ) from None


@pure
def unpack(datatype: Datatype, data: bytes, field: str) -> list[Value]:
    """The values of raw contents.

    Raises:
        Fault: INVALID_ARGUMENT: the datatype has raw contents only, or the bytes are not whole.
    """
    if datatype.name == BYTES:
        return list(byte_strings(data, field))
    if not datatype.code:
        raise invalid(field, f"{datatype.name} has no typed contents; ask for binary data")
    values: array[Any] = array(datatype.code)
    try:
        values.frombytes(data)
    except ValueError:
        raise invalid(field, f"has {len(data)} bytes, which are no whole elements") from None
    return [bool(value) for value in values] if datatype.name == BOOL else values.tolist()


@pure
def check_size(datatype: Datatype, shape: Sequence[int], data: bytes, field: str) -> None:
    """Check that raw contents have as many bytes or elements as their shape says.

    Raises:
        Fault: INVALID_ARGUMENT naming the field.
    """
    if min(shape, default=0) < 0:
        raise invalid(f"{field}.shape", "has a negative size")
    count = math.prod(shape)
    if datatype.name == BYTES:
        elements = len(byte_strings(data, field))
        if elements != count:
            raise invalid(f"{field}.data", f"has {elements} elements; the shape needs {count}")
        return
    expected = count * datatype.item_bytes
    if len(data) != expected:
        raise invalid(
            f"{field}.data",
            f"has {len(data)} bytes; shape {list(shape)} of {datatype.name} needs {expected}",
        )


@pure
def byte_strings(data: bytes, field: str) -> list[bytes]:
    """The elements of BYTES, each after its length in four bytes, little-endian.

    Raises:
        Fault: INVALID_ARGUMENT naming the field.
    """
    found: list[bytes] = []
    position = 0
    while position < len(data):
        if position + 4 > len(data):
            raise invalid(f"{field}.data", "ends inside a length")
        (size,) = struct.unpack_from("<I", data, position)
        position += 4 + size
        if position > len(data):
            raise invalid(f"{field}.data", "ends inside an element")
        found.append(data[position - size : position])
    return found


def _with_length(value: object, field: str) -> bytes:
    if isinstance(value, str):
        value = value.encode("utf-8", "surrogatepass")
    if not isinstance(value, bytes):
        raise invalid(f"{field}.contents", f"has a value that {BYTES} does not hold")
    return struct.pack("<I", len(value)) + value


def _names() -> str:
    return ", ".join(DATATYPES)
