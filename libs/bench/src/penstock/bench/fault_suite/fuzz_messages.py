"""Random messages of any type, from descriptors: odd values where they hurt, plausible ones where
they lead further into the code.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from random import Random
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from penstock.simulation.system import MODEL

MAX_DEPTH = 5
SET_SHARE = 0.35
"""Share of the fields of a message that are set."""
TEXTS = (
    "",
    MODEL,
    "a",
    "steady",
    "hello, world",
    "x" * 300,
    "\x00",
    "a\nb",
    "é\u202e\U0001f600",
    "../../etc/passwd",
    "{}",
    "[" * 200,
    '{"type":"object"}',
    "10.0.1.1:7000",
    "unix:/tmp/x",
    "0af7651916cd43dd8448eb211c80319c",
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "penstock:job:*",
    "%",
    "nan",
    "http://169.254.169.254/",
)
INTS = (0, 1, 2, 3, 7, 100, 1 << 16, (1 << 31) - 1)
LARGE = {
    FieldDescriptor.CPPTYPE_INT32: (-1, -(1 << 31), (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_INT64: (-1, -(1 << 63), (1 << 63) - 1, 1 << 53),
    FieldDescriptor.CPPTYPE_UINT32: ((1 << 32) - 1,),
    FieldDescriptor.CPPTYPE_UINT64: ((1 << 64) - 1, 1 << 63),
}
FLOATS = (0.0, -0.0, 1.0, 0.5, -1.0, 1e-30, 3e38, math.inf, -math.inf, math.nan)
BLOBS = (b"", b"\x00", b"\xff" * 9, b"abcd" * 4, bytes(range(64)))
Filler = Callable[[Message, Random, int], None]


def random_message(kind: type[Message], rng: Random) -> Message:
    """A random message of a type."""
    message = kind()
    _fill(message, rng, 0)
    return message


def mutated(data: bytes, rng: Random) -> bytes:
    """Bytes with a few changed, cut out, or added."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(4):
            case 0:
                out[at : at + 1] = bytes((rng.randrange(256),))
            case 1:
                del out[at : at + rng.randint(1, 8)]
            case 2:
                out[at:at] = rng.choice(BLOBS)
            case _:
                out[at:at] = out[max(at - 9, 0) : at]
    return bytes(out)


def parsed(kind: type[Message], data: bytes) -> Message | None:
    """The message of some bytes; None if they are none."""
    try:
        return kind.FromString(data)
    except DecodeError:
        return None


def _fill(message: Message, rng: Random, depth: int) -> None:
    for fill in _fillers(message.DESCRIPTOR):
        if rng.random() < SET_SHARE:
            fill(message, rng, depth)


@functools.cache
def _fillers(kind: Descriptor) -> tuple[Filler, ...]:
    return tuple(_filler(field) for field in kind.fields)


def _filler(field: FieldDescriptor) -> Filler:
    name = field.name
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return functools.partial(_fill_message, name, field)
    value = _values(field)
    if field.is_repeated:
        return lambda message, rng, _: getattr(message, name).extend(
            value(rng) for _ in range(rng.randint(0, 3))
        )
    return lambda message, rng, _: setattr(message, name, value(rng))


def _fill_message(
    name: str, field: FieldDescriptor, message: Message, rng: Random, depth: int
) -> None:
    if depth >= MAX_DEPTH:
        return
    if not field.is_repeated:
        child = getattr(message, name)
        child.SetInParent()
        _fill(child, rng, depth + 1)
        return
    for _ in range(rng.randint(0, 3)):
        if field.message_type.GetOptions().map_entry:
            entry = GetMessageClass(field.message_type)()
            _fill(entry, rng, depth + 1)
            _put(getattr(message, name), entry)
        else:
            _fill(getattr(message, name).add(), rng, depth + 1)


def _put(values: Any, entry: Any) -> None:
    """Put an entry of a map into it."""
    if isinstance(entry.value, Message):
        values[entry.key].CopyFrom(entry.value)
    else:
        values[entry.key] = entry.value


def _values(field: FieldDescriptor) -> Callable[[Random], Any]:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
            return lambda rng: rng.choice(BLOBS)
        case FieldDescriptor.CPPTYPE_STRING:
            return lambda rng: rng.choice(TEXTS)
        case FieldDescriptor.CPPTYPE_BOOL:
            return lambda rng: rng.random() < 0.5
        case FieldDescriptor.CPPTYPE_ENUM:
            numbers = (*(one.number for one in field.enum_type.values), 99)
            return lambda rng: rng.choice(numbers)
        case FieldDescriptor.CPPTYPE_FLOAT | FieldDescriptor.CPPTYPE_DOUBLE:
            return lambda rng: rng.choice(FLOATS)
    numbers = (*INTS, *LARGE[field.cpp_type])
    return lambda rng: rng.choice(numbers)
