"""Packing the spans of a settled trace.

Traces of one kind repeat their names and most of their values, so each is compressed with an
earlier one of its kind as dictionary: beside one of names alone it takes a third of the room and
less than half of the time.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from penstock.otel import attributes as semconv
from penstock.service.bounded_map import BoundedMap

NAMES = " ".join(
    value
    for name, value in sorted(vars(semconv).items())
    if name.isupper() and isinstance(value, str)
).encode()
"""What zlib may refer to in the first trace of a kind."""

LEVEL, WINDOW_BITS, MEMORY_LEVEL = 1, 13, 5
"""Of zlib: a trace has a few kilobytes, and a large window takes longer to prepare than to use."""
EXAMPLE_BYTES = 5 << 10
"""Of a trace that serves as dictionary; it has to leave room in the window for the next one."""
MAX_KINDS = 64
"""Kinds of traces with a dictionary of their own, of 50 kB each."""
TRACES_PER_EXAMPLE = 1000
"""After so many traces of a kind the next one becomes the dictionary."""


class PackedSpans(NamedTuple):
    """The compressed spans of a trace, and what is needed to read them."""

    data: bytes
    dictionary: bytes
    """Shared with other traces of its kind."""


class _Example:
    """An earlier trace of a kind, and a compressor that has read it. Not frozen: it counts."""

    __slots__ = ("compressor", "dictionary", "traces")

    def __init__(self, dictionary: bytes) -> None:
        self.dictionary = dictionary
        self.compressor = zlib.compressobj(
            LEVEL, wbits=WINDOW_BITS, memLevel=MEMORY_LEVEL, zdict=dictionary
        )
        self.traces = 0


class Packer:
    """Packs traces."""

    def __init__(self) -> None:
        self._first = _Example(NAMES)
        self._examples: BoundedMap[str, _Example] = BoundedMap(MAX_KINDS)

    def pack(self, kind: str, spans: Iterable[tuple[int, bytes]]) -> PackedSpans:
        """Compress spans: how many there are, the number of each one's source and its length
        (unsigned, four bytes each), then the spans one after another.

        Args:
            kind: which traces it is like, such as the name of its root.
            spans: the number of the source, and the serialised span.
        """
        numbers: list[int] = []
        parts: list[bytes] = [b""]
        for source, data in spans:
            numbers += (source, len(data))
            parts.append(data)
        parts[0] = struct.pack(f"<{len(numbers) + 1}I", len(parts) - 1, *numbers)
        raw = b"".join(parts)
        example = self._examples.get(kind, self._first)
        compressor = example.compressor.copy()
        packed = PackedSpans(compressor.compress(raw) + compressor.flush(), example.dictionary)
        example.traces += 1
        if example is self._first or example.traces >= TRACES_PER_EXAMPLE:
            self._examples.put(kind, _Example(raw[:EXAMPLE_BYTES]))
        return packed


def unpack(packed: PackedSpans) -> Iterator[tuple[int, bytes]]:
    """The number of the source and the bytes of each span."""
    raw = zlib.decompressobj(zdict=packed.dictionary).decompress(packed.data)
    (count,) = struct.unpack_from("<I", raw)
    numbers = struct.unpack_from(f"<{2 * count}I", raw, 4)
    begin = 4 + 8 * count
    for source, size in zip(numbers[::2], numbers[1::2], strict=True):
        yield source, raw[begin : begin + size]
        begin += size
