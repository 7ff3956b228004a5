"""Pieces of text that came at once, as one piece. Pure.

A provider that is faster than its reader leaves many events in one read. Each chunk of ours costs
every hop behind; the text is the same, and nothing waits for it longer.
"""

from __future__ import annotations

from collections.abc import Sequence

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.service.purity import pure

_DELTA = pb.GenerateChunk.DELTA_FIELD_NUMBER


@pure
def joined(chunks: Sequence[pb.GenerateChunk]) -> Sequence[pb.GenerateChunk]:
    """The chunks, those after each other that hold nothing but text as one."""
    if len(chunks) < 2:
        return chunks
    made: list[pb.GenerateChunk] = []
    texts: list[str] = []
    for chunk in chunks:
        if _is_text(chunk):
            texts.append(chunk.delta)
            continue
        _put(made, texts)
        made.append(chunk)
    _put(made, texts)
    return made


def _put(made: list[pb.GenerateChunk], texts: list[str]) -> None:
    if texts:
        made.append(pb.GenerateChunk(delta="".join(texts)))
        texts.clear()


def _is_text(chunk: pb.GenerateChunk) -> bool:
    fields = chunk.ListFields()
    return len(fields) == 1 and fields[0][0].number == _DELTA
