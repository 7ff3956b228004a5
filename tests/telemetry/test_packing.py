"""Packed spans: what comes back, and what examples of a kind are worth."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from penstock.telemetry.window.packing import MAX_KINDS, TRACES_PER_EXAMPLE, Packer, unpack

SPANS = st.lists(st.tuples(st.integers(0, 2**32 - 1), st.binary(max_size=9000)), max_size=5)


@given(st.lists(st.tuples(st.sampled_from("ab"), SPANS), max_size=6))
def test_what_was_packed_comes_back_whatever_was_packed_before(
    traces: list[tuple[str, list[tuple[int, bytes]]]],
) -> None:
    packer = Packer()
    packed = [packer.pack(kind, spans) for kind, spans in traces]
    assert [list(unpack(each)) for each in packed] == [spans for _, spans in traces]


def test_a_trace_takes_less_room_after_one_of_its_kind() -> None:
    packer, text = Packer(), " ".join(f"word{number}" for number in range(400)).encode()
    first, second = (len(packer.pack("kind", [(1, text)]).data) for _ in range(2))
    assert second < first / 2
    assert len(packer.pack("other", [(1, text)]).data) == first


def test_an_example_is_renewed_and_examples_are_bounded() -> None:
    packer = Packer()
    numbers = range(TRACES_PER_EXAMPLE + 2)
    packed = [packer.pack("kind", [(1, b"%d" % number)]) for number in numbers]
    assert len({each.dictionary for each in packed}) == 3
    kinds = [packer.pack(f"kind {number}", [(1, b"a")]) for number in range(3 * MAX_KINDS)]
    assert all(list(unpack(each)) == [(1, b"a")] for each in kinds)
    assert packer.pack("kind 0", [(1, b"a")]).dictionary == kinds[0].dictionary
