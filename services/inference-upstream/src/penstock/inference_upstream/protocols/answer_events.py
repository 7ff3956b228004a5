"""The events of a streamed answer, one at a time to whoever reads its wire; and a chunk that keeps
the caller's connection alive where the provider sent only a comment.
"""

from __future__ import annotations

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_upstream.protocols.event_stream import Event, EventStream
from penstock.inference_upstream.protocols.json_values import Halves

Chunks = list[pb.GenerateChunk]
KEEP_ALIVE = pb.GenerateChunk(keep_alive=True)


class AnswerEvents:
    """The part of an AnswerStream that the wires share: a wire says what an event means."""

    def __init__(self) -> None:
        self.is_done = False
        self._events = EventStream()
        self._halves = Halves()
        self._comments = 0

    def feed(self, piece: bytes) -> Chunks:
        """See AnswerStream."""
        chunks: Chunks = []
        for event in self._events.feed(piece):
            chunks += self._take(event)
        if self._events.comments > self._comments:
            self._comments = self._events.comments
            if not chunks:
                chunks.append(KEEP_ALIVE)
        return chunks

    def _take(self, event: Event) -> Chunks:
        """The chunks that an event brings; raises Fault."""
        raise NotImplementedError
