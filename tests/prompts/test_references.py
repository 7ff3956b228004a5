"""Values said by name: what stands in an earlier result can be found again byte for byte, and
nothing else is touched.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.prompts.conversation import Conversation, Policy, Turn
from penstock.prompts.json_text import compact
from penstock.prompts.optimiser import Optimiser
from penstock.prompts.references import Named, restored, values

LEAST = 16
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
BIG = {
    "flights": [{"number": f"HAT{n}", "price": n, "note": 'a "b", {c}'} for n in range(8)],
    "payments": {},
}


@st.composite
def conversations(draw: st.DrawFn) -> tuple[Turn, ...]:
    """Tool results made of the same few values, some written with blank space, some text, some
    calls answered twice.
    """
    shared = draw(st.lists(TREES, min_size=1, max_size=3))
    results = st.dictionaries(KEYS, st.sampled_from(shared) | TREES, max_size=4) | st.sampled_from(
        shared
    )
    turns = []
    for number in range(draw(st.integers(1, 5))):
        text = json.dumps(
            draw(results), indent=draw(st.sampled_from([None, 2])), ensure_ascii=draw(st.booleans())
        )
        call_id = draw(
            st.sampled_from([f"call_{number}", f"call_{number}", "twice", "", "not plain ]"])
        )
        turns.append(Turn("tool", text, call_id, draw(st.integers(0, 9)) == 0))
    return tuple(turns)


def _restored(shaped: tuple[Turn, ...]) -> list[str]:
    """Every result with its names replaced, without blank space."""
    known: dict[str, str] = {}
    out = []
    for turn in shaped:
        text = restored(turn.content, known.__getitem__)
        out.append(compact(text) or text)
        known.setdefault(turn.tool_call_id, out[-1])
    return out


@given(conversations())
def test_names_lead_back_to_the_same_bytes(turns: tuple[Turn, ...]) -> None:
    optimiser = Optimiser(
        Policy(least_gain_tokens=0, least_repeat_bytes=LEAST, least_value_bytes=LEAST)
    )
    once = optimiser.optimise(Conversation(turns)).conversation
    assert _restored(once.turns) == [compact(turn.content) or turn.content for turn in turns]
    assert optimiser.optimise(once).conversation == once


def test_a_reference_is_not_said_by_a_reference() -> None:
    text = '{"odd key": [1.4440097363394359e+115]}'
    turns = tuple(
        Turn("tool", text, f"call_{number}", breakpoint=not number) for number in range(3)
    )
    optimiser = Optimiser(
        Policy(least_gain_tokens=0, least_repeat_bytes=LEAST, least_value_bytes=LEAST)
    )
    once = optimiser.optimise(Conversation(turns)).conversation
    assert [turn.content for turn in once.turns] == [
        text,
        *["[same as the result of tool call call_0]"] * 2,
    ]
    assert optimiser.optimise(once).conversation == once


@given(conversations())
def test_a_turn_depends_on_those_before_it_only(turns: tuple[Turn, ...]) -> None:
    turns = tuple(replace(turn, breakpoint=False) for turn in turns)
    optimiser = Optimiser(
        Policy(least_gain_tokens=0, least_repeat_bytes=LEAST, least_value_bytes=LEAST)
    )
    whole = optimiser.optimise(Conversation(turns)).conversation.turns
    for size in range(len(turns)):
        assert optimiser.optimise(Conversation(turns[:size])).conversation.turns == whole[:size]


def test_a_value_that_came_before_is_said_by_its_place() -> None:
    turns = (
        Turn("tool", json.dumps(BIG), "c1"),
        Turn("tool", json.dumps({"status": "ok", "kept": BIG["flights"]}), "c2"),
    )
    result = Optimiser(Policy()).optimise(Conversation(turns))
    said = '{"status":"ok","kept":"[same as $.flights in the result of tool call c1]"}'
    assert result.conversation.turns[1].content == said
    assert result.decisions[-1].transform == "named_values" and result.decisions[-1].applied


def test_an_unchanged_block_before_a_breakpoint_can_be_pointed_to() -> None:
    held = Turn("tool", json.dumps(BIG, indent=2), "c1", breakpoint=True)
    shaped = (
        Optimiser(Policy())
        .optimise(Conversation((held, Turn("tool", json.dumps(BIG, indent=2), "c2"))))
        .conversation
    )
    assert shaped.turns[0] == held
    assert shaped.turns[1].content == "[same as the result of tool call c1]"


@pytest.mark.parametrize("ids", [("c1", "c1", "c1"), ("", "", ""), ("a b", "a b]", "c2")])
def test_a_result_without_a_name_of_its_own_is_not_pointed_to(ids: tuple[str, str, str]) -> None:
    texts = [json.dumps({"n": number, "kept": BIG}, separators=(",", ":")) for number in range(3)]
    turns = tuple(Turn("tool", text, name) for text, name in zip(texts, ids, strict=True))
    assert Optimiser(Policy()).optimise(Conversation(turns)).conversation.turns == turns


def test_what_was_selected_away_is_not_pointed_to() -> None:
    text = "\n\n".join(
        [f"Passage {n} speaks of harbours and of ships at length." for n in range(9)]
    )
    turns = (Turn("user", "Passage 3?"), Turn("tool", text, "c1"), Turn("tool", text, "c2"))
    shaped = Optimiser(Policy(keep_share=0.3)).optimise(Conversation(turns)).conversation.turns
    assert "left out" in shaped[1].content and shaped[2].content == shaped[1].content


def test_paths_and_brackets_inside_strings() -> None:
    text = '{"a":{"b":[1,{"c":"x,]}"}]},"odd key":[[]],"z":[{"q":1.0},{"q":1e0}]}'
    assert {value.path: text[value.start : value.end] for value in values(text) if value.path} == {
        "$": text,
        "$.a": '{"b":[1,{"c":"x,]}"}]}',
        "$.a.b": '[1,{"c":"x,]}"}]',
        "$.a.b[1]": '{"c":"x,]}"}',
        "$.z": '[{"q":1.0},{"q":1e0}]',
        "$.z[0]": '{"q":1.0}',
        "$.z[1]": '{"q":1e0}',
    }
    assert Named(1).replaced(text, list(values(text))) is None
    with pytest.raises(KeyError):
        restored('"[same as $.nothing in the result of tool call c1]"', {"c1": text}.__getitem__)
