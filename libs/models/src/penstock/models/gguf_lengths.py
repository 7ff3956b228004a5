"""Whether the lengths that a GGUF file declares fit into it, before anything is read by them.

ggml's own Python package makes a list of as many values as an array says it has, whether or not the
file holds them: a damaged length of some bytes takes all memory.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little
endian.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

MAGIC = b"GGUF"
VERSIONS = (2, 3)
STRING, ARRAY = 8, 9
BYTES_OF = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a number, by the number of its type."""
LEAST_BYTES = {STRING: 8, ARRAY: 12}
"""Bytes of a value of the other types at least: its length, and an array's type."""
MAX_DIMENSIONS = 4


class BadLength(ValueError):
    """A length points beyond the end of the file, or a type is none of the format's."""


def check_lengths(path: Path) -> None:
    """Check the lengths of all entries and of all descriptions of tensors.

    Raises:
        OSError: the file cannot be read.
        BadLength: see there.
    """
    with path.open("rb") as file:
        if not file.seek(0, 2):
            raise BadLength("the file is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _Header(data).check()


class _Header:
    """The part of a file before its tensors, and how far it has been checked."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 0

    def check(self) -> None:
        if self._data[: len(MAGIC)] != MAGIC:
            raise BadLength("the file does not begin as GGUF does")
        self._skip(len(MAGIC))
        if self._number("I") not in VERSIONS:
            raise BadLength("the version is not 2 or 3")
        tensors, entries = self._number("Q"), self._number("Q")
        for _ in range(entries):
            self._skip(self._number("Q"))
            self._check_value(self._number("I"))
        for _ in range(tensors):
            self._skip(self._number("Q"))
            dimensions = self._number("I")
            if dimensions > MAX_DIMENSIONS:
                raise BadLength(f"a tensor has {dimensions} dimensions")
            self._skip(dimensions * 8 + 4 + 8)

    def _check_value(self, kind: int) -> None:
        if kind == STRING:
            self._skip(self._number("Q"))
        elif kind == ARRAY:
            self._check_array(self._number("I"), self._number("Q"))
        elif kind in BYTES_OF:
            self._skip(BYTES_OF[kind])
        else:
            raise BadLength(f"there is no type {kind}")

    def _check_array(self, kind: int, count: int) -> None:
        if kind in BYTES_OF:
            self._skip(count * BYTES_OF[kind])
        elif kind not in LEAST_BYTES or count * LEAST_BYTES[kind] > self._left:
            raise BadLength(f"an array of {count} values of type {kind}")
        else:
            for _ in range(count):
                self._check_value(kind)

    @property
    def _left(self) -> int:
        return len(self._data) - self._at

    def _number(self, form: str) -> int:
        start = self._at
        self._skip(struct.calcsize(f"<{form}"))
        return int(struct.unpack_from(f"<{form}", self._data, start)[0])

    def _skip(self, count: int) -> None:
        if count > self._left:
            raise BadLength(f"{count} bytes are declared where {self._left} are left")
        self._at += count
