"""An answer as the store keeps it, and its bytes: compressed above a size."""

from __future__ import annotations

import json
from typing import NamedTuple

import zstandard
from penstock.api.inference.v1 import inference_pb2

UNCOMPRESSED = b"0"
COMPRESSED = b"1"
"""First byte of a stored entry."""


class Entry(NamedTuple):
    """A stored answer and what it cost.

    `created_ms` and `fresh_until_ms` are Unix times in milliseconds. From `fresh_until_ms` on the
    entry is stale, and kept only for callers that may have a stale answer; 0 means never.
    """

    key: str
    result: inference_pb2.TaskResult
    paid_microusd: int
    created_ms: int
    model: str
    scope_key: str
    tags: tuple[str, ...]
    fresh_until_ms: int = 0

    def is_stale(self, now_ms: int) -> bool:
        """Whether the entry is past its time."""
        return 0 < self.fresh_until_ms <= now_ms

    def age_ms(self, now_ms: int) -> int:
        """Milliseconds since the answer was stored."""
        return max(0, now_ms - self.created_ms)


class EntryCodec:
    """Entries to bytes and back.

    One byte says whether the rest is compressed. The rest is the length of the head in four bytes,
    the head as JSON, and the result.
    """

    def __init__(self) -> None:
        self._compressor = zstandard.ZstdCompressor(level=3)
        self._decompressor = zstandard.ZstdDecompressor()

    def encode(self, entry: Entry, fresh_until_ms: int, compress_above_bytes: int) -> bytes:
        """An entry's bytes.

        Args:
            entry: what to store.
            fresh_until_ms: from when on it is stale, in place of its own.
            compress_above_bytes: larger ones are compressed.
        """
        head = json.dumps(
            [
                entry.paid_microusd,
                entry.created_ms,
                entry.model,
                entry.scope_key,
                entry.tags,
                fresh_until_ms,
            ]
        ).encode()
        body = len(head).to_bytes(4, "big") + head + entry.result.SerializeToString()
        if len(body) > compress_above_bytes:
            return COMPRESSED + self._compressor.compress(body)
        return UNCOMPRESSED + body

    def decode(self, key: str, raw: bytes) -> Entry:
        """The entry of a key."""
        body = raw[1:]
        if raw[:1] == COMPRESSED:
            body = self._decompressor.decompress(body)
        head_end = 4 + int.from_bytes(body[:4], "big")
        paid_microusd, created_ms, model, scope_key, tags, *newer = json.loads(body[4:head_end])
        result = inference_pb2.TaskResult.FromString(body[head_end:])
        return Entry(key, result, paid_microusd, created_ms, model, scope_key, tuple(tags), *newer)
