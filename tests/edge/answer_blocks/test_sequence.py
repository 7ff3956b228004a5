"""Chunks become blocks that follow each other, whatever order the provider sent them in."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.bench.wires.playing import played
from penstock.edge.answer_blocks.blocks import (
    Begun,
    Block,
    Ended,
    Event,
    Grown,
    ReasoningBlock,
    RefusalBlock,
    TextBlock,
    ToolCallBlock,
)
from penstock.edge.answer_blocks.extras import EXTRAS
from penstock.edge.answer_blocks.sequence import BlockSequence, blocks_of
from penstock.testkit.recordings import Recording, recordings


def events_of(*chunks: pb.GenerateChunk) -> list[Event]:
    """What happens to the blocks of an answer."""
    sequence = BlockSequence()
    return [event for chunk in chunks for event in sequence.add(chunk)] + sequence.finish()


def whole_blocks(events: list[Event]) -> list[Block]:
    return [event.block for event in events if isinstance(event, Ended)]


def call(index: int, arguments: str = "", name: str = "", extra: str = "") -> pb.GenerateChunk:
    """A piece of a tool call; one with a name is its first."""
    delta = pb.ToolCallDelta(index=index, arguments_json=arguments, name=name, extra_json=extra)
    delta.id = f"call_{index}" if name else ""
    return pb.GenerateChunk(tool_calls=[delta])


def thought(index: int, text: str = "", state: bytes = b"", kind: str = "") -> pb.GenerateChunk:
    delta = pb.ReasoningDelta(index=index, text=text, state=state, format=kind)
    return pb.GenerateChunk(reasoning=[delta])


def text(said: str) -> pb.GenerateChunk:
    return pb.GenerateChunk(delta=said)


def test_a_block_begins_grows_and_ends() -> None:
    assert events_of(text("a"), text("b")) == [
        Begun(0, TextBlock()),
        Grown(0, "a"),
        Grown(0, "b"),
        Ended(0, TextBlock("ab")),
    ]


def test_arguments_in_the_first_piece_of_a_call_are_not_lost() -> None:
    assert whole_blocks(events_of(call(0, '{"a":', name="f"), call(0, "1}"))) == [
        ToolCallBlock("call_0", "f", '{"a":1}')
    ]


def test_parallel_calls_whose_pieces_mix_follow_each_other() -> None:
    events = events_of(
        call(0, '{"a"', name="f"),
        call(1, '{"b"', name="g"),
        call(0, ":1}"),
        call(1, ":2}"),
        text("done"),
    )
    assert whole_blocks(events) == [
        ToolCallBlock("call_0", "f", '{"a":1}'),
        ToolCallBlock("call_1", "g", '{"b":2}'),
        TextBlock("done"),
    ]


def test_a_call_is_sent_on_as_soon_as_the_one_before_is_whole() -> None:
    sequence = BlockSequence()
    sequence.add(call(0, '{"a":1', name="f"))
    assert sequence.add(call(1, '{"b":', name="g")) == []
    released = sequence.add(call(0, "}"))
    assert Begun(1, ToolCallBlock("call_1", "g")) in released
    assert released[-1] == Grown(1, '{"b":')


def test_a_call_without_arguments_has_an_empty_object() -> None:
    events = events_of(call(0, name="f"), call(1, "{}", name="g"))
    assert [block.arguments_json for block in whole_blocks(events)] == ["{}", "{}"]  # type: ignore[union-attr]


def test_an_empty_text_is_no_block() -> None:
    assert events_of(text(""), call(0, "{}", name="f"), text("")) == [
        Begun(0, ToolCallBlock("call_0", "f")),
        Grown(0, "{}"),
        Ended(0, ToolCallBlock("call_0", "f", "{}")),
    ]


def test_reasoning_never_stands_inside_a_text() -> None:
    events = events_of(text("a"), thought(0, "hm", kind="x"), text("b"))
    assert whole_blocks(events) == [TextBlock("a"), ReasoningBlock("hm", b"", "x"), TextBlock("b")]


def test_state_that_comes_after_the_text_is_a_block_of_the_same_format() -> None:
    events = events_of(thought(0, "hm", kind="x"), text("a"), thought(0, state=b"late"))
    assert whole_blocks(events)[-1] == ReasoningBlock("", b"late", "x")


def test_reasoning_without_text_begins_with_its_whole_state() -> None:
    events = events_of(thought(0, state=b"a", kind="x"), thought(0, state=b"b"), text("t"))
    assert events[0] == Begun(0, ReasoningBlock("", b"ab", "x"))


def test_a_refusal_is_a_block() -> None:
    assert whole_blocks(events_of(pb.GenerateChunk(refusal="no"))) == [RefusalBlock("no")]


def test_what_a_provider_adds_to_calls_is_one_more_block_at_the_end() -> None:
    events = events_of(call(0, "{}", name="f"), call(0, extra='{"s":1}'))
    last = whole_blocks(events)[-1]
    assert isinstance(last, ReasoningBlock)
    assert last.format == EXTRAS
    assert json.loads(last.state) == [["call_0", '{"s":1}']]


def test_a_whole_answer_has_its_reasoning_where_it_stood() -> None:
    answer = pb.GenerateResult()
    answer.message.content = "text"
    for number in range(2):
        answer.message.tool_calls.add(id=f"c{number}", name="f", arguments_json="{}")
    for position in (0, 1, 2, 3):
        answer.message.reasoning.add(text=str(position), format="x", position=position)
    kinds = [getattr(block, "text", "call") for block in blocks_of(answer)]
    assert kinds == ["0", "text", "1", "call", "2", "call", "3"]


ANSWERED = [made for made in recordings() if made.is_stream and "reason" not in made.expect]


@pytest.mark.parametrize("made", ANSWERED, ids=str)
def test_a_recorded_answer_has_the_same_blocks_whole_and_in_pieces(made: Recording) -> None:
    came = played(made)
    assert came.result is not None
    in_pieces = whole_blocks(events_of(*came.chunks))
    assert with_state_in_place(in_pieces) == blocks_of(came.result.generate)


def with_state_in_place(blocks: list[Block]) -> list[Block]:
    """Blocks with state that came late put into the reasoning that it belongs to."""
    joined: list[Block] = []
    for block in blocks:
        waiting = [
            at
            for at, each in enumerate(joined)
            if isinstance(each, ReasoningBlock) and each.text and not each.state
        ]
        if waiting and isinstance(block, ReasoningBlock) and not block.text:
            joined[waiting[0]] = replace(joined[waiting[0]], state=block.state)  # type: ignore[call-arg]
        else:
            joined.append(block)
    return joined


PIECES = st.lists(
    st.one_of(
        st.text(max_size=3).map(text),
        st.builds(thought, st.integers(0, 2), st.text(max_size=3), st.binary(max_size=2)),
        st.builds(
            call, st.integers(0, 3), st.sampled_from(["", "{", "}", "{}", '"a":1']), st.just("f")
        ),
        st.text(max_size=3).map(lambda said: pb.GenerateChunk(refusal=said)),
    ),
    max_size=12,
)


@settings(max_examples=300, deadline=None)
@given(chunks=PIECES)
def test_blocks_never_interleave_and_lose_no_text(chunks: list[pb.GenerateChunk]) -> None:
    events = events_of(*chunks)
    for before, after in pairwise(events):
        assert after.index == before.index + (isinstance(before, Ended))
        assert isinstance(after, Begun) == isinstance(before, Ended)
    said = "".join(chunk.delta for chunk in chunks)
    texts = [block.text for block in whole_blocks(events) if isinstance(block, TextBlock)]
    assert "".join(texts) == said
