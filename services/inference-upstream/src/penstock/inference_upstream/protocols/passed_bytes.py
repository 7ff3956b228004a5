"""The chunks of a streamed answer with the provider's bytes, which go on to a caller of its wire.

Pure but for what is held until its event is whole.
"""

from __future__ import annotations

from collections.abc import Sequence

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_upstream.protocols.openai_chat.hidden_usage import HiddenUsage


class PassedBytes:
    """One stream's bytes. A chunk never goes before its bytes: the first one tells an edge that the
    provider's bytes are all it has to send.

    Args:
        hides_usage: whether the event that tells only the usage stays here.
    """

    def __init__(self, *, hides_usage: bool) -> None:
        self._hidden = HiddenUsage() if hides_usage else None
        self._waiting: list[pb.GenerateChunk] = []

    def with_bytes(
        self, chunks: Sequence[pb.GenerateChunk], piece: bytes
    ) -> Sequence[pb.GenerateChunk]:
        """The chunks that were read of a piece, the first of them with the bytes that go on; none
        while its event is not whole.
        """
        passed = piece if self._hidden is None else self._hidden.feed(piece)
        return self._given(chunks, passed)

    def with_last_bytes(
        self, chunks: Sequence[pb.GenerateChunk], rest: bytes
    ) -> Sequence[pb.GenerateChunk]:
        """The last chunks, the first of them with the bytes that are left."""
        passed = self.last(rest)
        return self._given(chunks, passed) if passed else [*self._waiting, *chunks]

    def last(self, rest: bytes) -> bytes:
        """The bytes that are left where the stream ends with `rest`."""
        return rest if self._hidden is None else self._hidden.feed(rest) + self._hidden.end()

    def _given(
        self, chunks: Sequence[pb.GenerateChunk], passed: bytes
    ) -> Sequence[pb.GenerateChunk]:
        self._waiting.extend(chunks)
        if not passed:
            return ()
        given, self._waiting = self._waiting, []
        first = pb.GenerateChunk(wire_piece=passed)
        if given:
            first.MergeFrom(given[0])
        return [first, *given[1:]]
