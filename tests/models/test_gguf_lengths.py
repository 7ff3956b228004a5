"""Lengths in a GGUF file are believed only where the file is long enough for them."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from penstock.models.gguf_lengths import BadLength, check_lengths

HUGE = 1 << 40


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def entry(kind: int, value: bytes) -> bytes:
    return text(b"a.b") + struct.pack("<I", kind) + value


def tensor(dimensions: int = 2) -> bytes:
    sizes = struct.pack(f"<{dimensions}Q", *[4] * dimensions)
    return text(b"t") + struct.pack("<I", dimensions) + sizes + struct.pack("<IQ", 0, 0)


def header(*parts: bytes, entries: int, tensors: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, entries) + b"".join(parts)


def array(kind: int, count: int, *items: bytes) -> bytes:
    return entry(9, struct.pack("<IQ", kind, count) + b"".join(items))


WORDS = array(8, 2, text(b"x"), text(b"yy"))
NESTED = array(9, 1, struct.pack("<IQ", 4, 2) + b"\0" * 8)


@pytest.mark.parametrize("version", [2, 3])
def test_lengths_that_fit_are_taken(tmp_path: Path, version: int) -> None:
    path = tmp_path / "a.gguf"
    parts = (entry(4, b"\0" * 4), entry(8, text(b"llama")), WORDS, NESTED, tensor())
    path.write_bytes(header(*parts, entries=4, tensors=1, version=version))
    check_lengths(path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GGML",
        header(entries=0, version=1),
        header(entries=HUGE),
        header(entries=0, tensors=HUGE),
        header(entry(8, struct.pack("<Q", HUGE)), entries=1),
        header(entry(13, b""), entries=1),
        header(array(0, HUGE), entries=1),
        header(array(8, HUGE), entries=1),
        header(array(9, HUGE), entries=1),
        header(array(13, 1), entries=1),
        header(tensor(5), entries=0, tensors=1),
        header(WORDS, NESTED, tensor(), entries=2, tensors=1)[:-1],
    ],
)
def test_lengths_that_do_not_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(data)
    with pytest.raises(BadLength):
        check_lengths(path)
