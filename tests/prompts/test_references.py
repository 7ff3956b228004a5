"""References to earlier tool results lead back to the same bytes, and nothing else changes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.prompts.conversation import Conversation, Policy, Turn
from penstock.prompts.json_text import compact
from penstock.prompts.optimiser import Optimiser
from penstock.prompts.references import ValueIndex, json_values, resolve_references

MIN_BYTES = 16
EAGER = Policy(min_gain_tokens=0, min_repeat_bytes=MIN_BYTES, min_value_bytes=MIN_BYTES)
KEYS = st.sampled_from(["a", "b", "flights", "odd key", 'quo"te', "\u00e9", "x.y"])
SCALARS = (
    st.none()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
LARGE = {
    "flights": [{"number": f"HAT{n}", "price": n, "note": 'a "b", {c}'} for n in range(8)],
    "payments": {},
}


@st.composite
def conversations(draw: st.DrawFn) -> tuple[Turn, ...]:
    """Tool results made of the same few values.

    Some have whitespace, some are texts, some call ids occur twice or cannot be referred to.
    """
    shared = draw(st.lists(TREES, min_size=1, max_size=3))
    values = st.sampled_from(shared)
    results = st.dictionaries(KEYS, values | TREES, max_size=4) | values
    turns = []
    for number in range(draw(st.integers(1, 5))):
        text = json.dumps(
            draw(results), indent=draw(st.sampled_from([None, 2])), ensure_ascii=draw(st.booleans())
        )
        own_id = f"call_{number}"
        call_id = draw(st.sampled_from([own_id, own_id, "twice", "", "not plain ]"]))
        turns.append(Turn("tool", text, call_id, breakpoint=draw(st.integers(0, 9)) == 0))
    return tuple(turns)


def optimise(turns: tuple[Turn, ...], policy: Policy = EAGER) -> tuple[Turn, ...]:
    return Optimiser(policy).optimise(Conversation(turns)).conversation.turns


def resolved(turns: tuple[Turn, ...]) -> list[str]:
    """Every result with its references resolved, without whitespace."""
    known: dict[str, str] = {}
    texts = []
    for turn in turns:
        text = resolve_references(turn.content, known.__getitem__)
        texts.append(compact(text) or text)
        known.setdefault(turn.tool_call_id, texts[-1])
    return texts


@given(conversations())
def test_references_lead_back_to_the_same_bytes(turns: tuple[Turn, ...]) -> None:
    shaped = optimise(turns)
    assert resolved(shaped) == [compact(turn.content) or turn.content for turn in turns]
    assert optimise(shaped) == shaped


def test_every_repeat_refers_to_the_first_result() -> None:
    text = '{"odd key": [1.4440097363394359e+115]}'
    turns = tuple(Turn("tool", text, f"call_{n}", breakpoint=n == 0) for n in range(3))
    shaped = optimise(turns)
    reference = "[same as the result of tool call call_0]"
    assert [turn.content for turn in shaped] == [text, reference, reference]
    assert optimise(shaped) == shaped


@given(conversations())
def test_a_turn_depends_only_on_the_turns_before_it(turns: tuple[Turn, ...]) -> None:
    turns = tuple(replace(turn, breakpoint=False) for turn in turns)
    shaped = optimise(turns)
    for size in range(len(turns)):
        assert optimise(turns[:size]) == shaped[:size]


def test_a_value_of_an_earlier_result_becomes_a_reference_by_its_path() -> None:
    turns = (
        Turn("tool", json.dumps(LARGE), "c1"),
        Turn("tool", json.dumps({"status": "ok", "kept": LARGE["flights"]}), "c2"),
    )
    result = Optimiser(Policy()).optimise(Conversation(turns))
    expected = '{"status":"ok","kept":"[same as $.flights in the result of tool call c1]"}'
    assert result.conversation.turns[1].content == expected
    assert result.decisions[-1].transform == "named_values"
    assert result.decisions[-1].applied


def test_a_result_before_a_breakpoint_stays_and_can_be_referred_to() -> None:
    text = json.dumps(LARGE, indent=2)
    first = Turn("tool", text, "c1", breakpoint=True)
    shaped = optimise((first, Turn("tool", text, "c2")), Policy())
    assert shaped[0] == first
    assert shaped[1].content == "[same as the result of tool call c1]"


@pytest.mark.parametrize(
    "ids", [("c1", "c1", "c1"), ("", "", ""), ("a b", "a b]", "c2")], ids=["same", "none", "odd"]
)
def test_a_result_without_a_usable_id_of_its_own_is_not_referred_to(
    ids: tuple[str, str, str],
) -> None:
    texts = [json.dumps({"n": n, "kept": LARGE}, separators=(",", ":")) for n in range(3)]
    turns = tuple(Turn("tool", text, call_id) for text, call_id in zip(texts, ids, strict=True))
    assert optimise(turns, Policy()) == turns


def test_a_result_with_passages_left_out_is_not_referred_to() -> None:
    text = "\n\n".join(f"Passage {n} speaks of harbours and of ships at length." for n in range(9))
    turns = (Turn("user", "Passage 3?"), Turn("tool", text, "c1"), Turn("tool", text, "c2"))
    shaped = optimise(turns, Policy(keep_share=0.3))
    assert "left out" in shaped[1].content
    assert shaped[2].content == shaped[1].content


def test_paths_skip_odd_keys_and_ignore_brackets_in_strings() -> None:
    text = '{"a":{"b":[1,{"c":"x,]}"}]},"odd key":[[]],"z":[{"q":1.0},{"q":1e0}]}'
    values = list(json_values(text))
    assert {value.path: text[value.start : value.end] for value in values if value.path} == {
        "$": text,
        "$.a": '{"b":[1,{"c":"x,]}"}]}',
        "$.a.b": '[1,{"c":"x,]}"}]',
        "$.a.b[1]": '{"c":"x,]}"}',
        "$.z": '[{"q":1.0},{"q":1e0}]',
        "$.z[0]": '{"q":1.0}',
        "$.z[1]": '{"q":1e0}',
    }


def test_an_empty_index_replaces_nothing() -> None:
    text = '{"a":[1]}'
    assert ValueIndex(min_bytes=1).replace(text, list(json_values(text))) is None


def test_a_reference_that_stands_for_nothing_raises() -> None:
    with pytest.raises(KeyError):
        resolve_references(
            '"[same as $.nothing in the result of tool call c1]"', {"c1": '{"a":1}'}.__getitem__
        )
