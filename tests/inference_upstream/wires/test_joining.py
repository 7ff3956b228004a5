"""Text that came at once is one chunk; everything else keeps its place."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_upstream.protocols.joining import joined

TEXTS = st.builds(lambda text: pb.GenerateChunk(delta=text), st.text(min_size=1, max_size=5))
OTHERS = st.sampled_from(
    [
        pb.GenerateChunk(keep_alive=True),
        pb.GenerateChunk(refusal="no"),
        pb.GenerateChunk(delta="x", logprobs=[pb.TokenLogprob()]),
        pb.GenerateChunk(tool_calls=[pb.ToolCallDelta(index=0, arguments_json="{")]),
        pb.GenerateChunk(reasoning=[pb.ReasoningDelta(index=0, text="so")]),
        pb.GenerateChunk(delta="end", finish_reason=pb.FINISH_REASON_STOP),
    ]
)


def split(chunks: list[pb.GenerateChunk]) -> list[bytes]:
    """The chunks with each character of plain text as one."""
    parts: list[bytes] = []
    for chunk in chunks:
        plain = chunk == pb.GenerateChunk(delta=chunk.delta)
        texts = [pb.GenerateChunk(delta=one) for one in chunk.delta] if plain else [chunk]
        parts += [each.SerializeToString() for each in texts]
    return parts


@given(st.lists(st.one_of(TEXTS, OTHERS), max_size=12))
def test_nothing_is_lost_or_moved(chunks: list[pb.GenerateChunk]) -> None:
    made = list(joined(chunks))
    assert split(made) == split(chunks)
    plain = [chunk == pb.GenerateChunk(delta=chunk.delta) for chunk in made]
    assert not any(one and other for one, other in itertools.pairwise(plain))
