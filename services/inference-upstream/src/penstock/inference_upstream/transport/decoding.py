"""Bodies of upstreams that compress although they are asked not to."""

from __future__ import annotations

import zlib
from collections.abc import AsyncGenerator, AsyncIterator

from penstock.inference_upstream.protocols.faults import malformed

IDENTITY = ("", "identity")
GZIP_OR_ZLIB = zlib.MAX_WBITS | 32
"""Both formats, told apart by their headers."""
MAX_STEP_BYTES = 1 << 18
"""Bytes that are decompressed at once, so that a small body cannot fill the memory before its size
is checked.
"""


def decoded(pieces: AsyncIterator[bytes], encoding: str) -> AsyncIterator[bytes]:
    """The pieces of a body as they were before its content encoding (RFC 9110, 8.4).

    Raises:
        Fault: UPSTREAM_MALFORMED for an encoding that is not known, or a body that is not so
            encoded.
    """
    name = encoding.strip().lower()
    if name in IDENTITY:
        return pieces
    if name not in ("gzip", "x-gzip", "deflate"):
        raise malformed(f"content encoding {name[:32]!r}, though identity was asked for")
    return _inflated(pieces, name)


async def _inflated(pieces: AsyncIterator[bytes], name: str) -> AsyncGenerator[bytes, None]:
    inflater = zlib.decompressobj(GZIP_OR_ZLIB)
    is_first = True
    async for piece in pieces:
        rest = piece
        while rest:
            try:
                out = inflater.decompress(rest, MAX_STEP_BYTES)
            except zlib.error:
                if not (is_first and name == "deflate"):
                    raise malformed(f"its body is not {name}") from None
                inflater = zlib.decompressobj(-zlib.MAX_WBITS)  # deflate without a header
                is_first = False
                continue
            is_first = False
            rest = inflater.unconsumed_tail
            if out:
                yield out
    if not inflater.eof:
        raise malformed("its compressed body is cut")
