"""The events of a streamed answer, one at a time to whoever reads its wire; and a chunk that keeps
the caller's connection alive where the provider sent only a comment.
"""

from __future__ import annotations

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_upstream.protocols.answer import GrowingAnswer
from penstock.inference_upstream.protocols.event_stream import Event, EventStream
from penstock.inference_upstream.protocols.json_values import Halves
from penstock.inference_upstream.protocols.repeated_events import RepeatedEvents

Chunks = list[pb.GenerateChunk]
KEEP_ALIVE = pb.GenerateChunk(keep_alive=True)


class AnswerEvents:
    """The part of an AnswerStream that the wires share: a wire says what an event means.

    Args:
        answer: grows by the texts of repeated events.
        repeated: what the wire has learned of them.
    """

    def __init__(self, answer: GrowingAnswer, repeated: RepeatedEvents) -> None:
        self.is_done = False
        self._events = EventStream()
        self._halves = Halves()
        self._comments = 0
        self._text_answer = answer
        self._repeated = repeated

    def feed(self, piece: bytes) -> Chunks:
        """See AnswerStream."""
        chunks: Chunks = []
        texts: list[str] = []
        for event in self._events.feed(piece):
            text = None if self.is_done else self._repeated.text_of(event)
            if text is None:
                self._add_texts(texts, chunks)
                chunks += self._take(event)
            else:
                texts.append(text)
        self._add_texts(texts, chunks)
        if self._events.comments > self._comments:
            self._comments = self._events.comments
            if not chunks:
                chunks.append(KEEP_ALIVE)
        return chunks

    def _add_texts(self, texts: list[str], chunks: Chunks) -> None:
        """Texts that came one after another, as one chunk."""
        if text := "".join(texts):
            chunks.append(self._text_answer.add_text(text))
        texts.clear()

    def _take(self, event: Event) -> Chunks:
        """The chunks that an event brings, read in full; raises Fault."""
        raise NotImplementedError
