"""The optimiser: what may change, what may never, and that a prefix once sent stays the same
bytes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.prompts.conversation import Conversation, Policy, ToolSpec, Turn
from penstock.prompts.optimiser import Optimiser
from penstock.prompts.stability import NOTE, shared_prefix_bytes, split_volatile
from penstock.prompts.templates import Template

SYSTEM = (
    "Current time: 2026-03-01T10:00:{:02d}Z\n"
    "Request id: 1f0c6f0e-93a1-4b8e-9a51-0f5d2c7e{:04d}\nYou book flights. The sale ends "
    "2026-03-05."
)
PRETTY = json.dumps({"flights": [{"number": "HAT136", "price": 1.50}] * 6}, indent=2)


def _call(number: int, turns: tuple[Turn, ...]) -> Conversation:
    tools = (
        ToolSpec("search", "find", '{"type": "object", "required": ["to"]}'),
        ToolSpec("book", "buy", '{"b": 1, "a": 2}'),
    )
    return Conversation(
        (Turn("system", SYSTEM.format(number, number)), *turns),
        tools if number % 2 else tools[::-1],
    )


def _text(conversation: Conversation) -> str:
    return repr(conversation.tools) + repr(conversation.turns)


def test_the_next_call_shares_the_whole_prefix() -> None:
    history = (
        Turn("user", "to Oslo"),
        Turn("assistant", ""),
        Turn("tool", PRETTY, tool_call_id="c1"),
        Turn("user", "the early one"),
    )
    optimiser = Optimiser(Policy())
    first = optimiser.optimise(_call(1, history[:1])).conversation
    second = optimiser.optimise(_call(2, history)).conversation
    assert first.tools == second.tools
    assert first.turns[:2] == second.turns[:2]
    assert (
        first.turns[-1].content.startswith(NOTE)
        and "2026-03-01T10:00:01Z" in first.turns[-1].content
    )
    before = shared_prefix_bytes(_text(_call(1, history[:1])), _text(_call(2, history)))
    assert shared_prefix_bytes(_text(first), _text(second)) > before


def test_nothing_moved_is_lost() -> None:
    conversation = _call(3, (Turn("user", "hello"),))
    shaped = Optimiser(Policy()).optimise(conversation).conversation
    for line in conversation.turns[0].content.split("\n"):
        assert any(line in turn.content for turn in shaped.turns)


@pytest.mark.parametrize(
    "line",
    [
        "The sale ends 2026-03-05.",
        "Never answer after 2026-03-05T10:00:00Z unless asked.",
        "Model: gpt-4o",
        "Temperature: 21",
        "Use id 42 for tests",
    ],
)
def test_meaning_is_not_moved(line: str) -> None:
    assert split_volatile(line) == (line, ())


TURNS = st.lists(
    st.builds(
        Turn,
        st.sampled_from(["system", "user", "assistant", "tool"]),
        st.one_of(
            st.text(),
            st.just(PRETTY),
            st.just(SYSTEM.format(1, 1)),
            st.just("line\n\n\n\nline  \n"),
        ),
        st.sampled_from(["", "c1", "c2"]),
        st.booleans(),
    ),
    max_size=6,
)


POLICIES = st.builds(
    Policy,
    stable_prefix=st.booleans(),
    lossless=st.booleans(),
    least_gain_tokens=st.integers(0, 20),
    least_repeat_bytes=st.integers(0, 300),
    named_values=st.booleans(),
    least_value_bytes=st.integers(20, 300),
    templates=st.sampled_from(
        [(), (Template("hat", "HAT136", "H"),), (Template("line", "line\n\n", "l"),)]
    ),
)
"""All that loses nothing, and templates; what selection leaves depends on the words of the
question.
"""


@given(TURNS, POLICIES)
def test_it_is_idempotent_and_deterministic(turns: list[Turn], policy: Policy) -> None:
    optimiser = Optimiser(policy)
    once = optimiser.optimise(Conversation(tuple(turns)))
    assert optimiser.optimise(Conversation(tuple(turns))) == once
    assert optimiser.optimise(once.conversation).conversation == once.conversation


@given(TURNS, POLICIES, st.sampled_from([1.0, 0.4]))
def test_only_tool_results_change_and_nothing_before_a_breakpoint(
    turns: list[Turn], policy: Policy, keep_share: float
) -> None:
    shaped = (
        Optimiser(replace(policy, stable_prefix=False, keep_share=keep_share))
        .optimise(Conversation(tuple(turns)))
        .conversation.turns
    )
    last = max((index for index, turn in enumerate(turns) if turn.breakpoint), default=-1)
    for index, (before, after) in enumerate(zip(turns, shaped, strict=True)):
        if before.role != "tool" or index <= last:
            assert before == after


@pytest.mark.parametrize(
    "text",
    [
        "```python\nx  =  1   \n\n\n\n```",
        "diff --git a/x b/x\n@@ -1 +1 @@\n-  a\n\n\n\n+  b",
        "def f():\n    return 1   \n\n\n\nclass A: pass",
        "key: value   \n\n\n\nother: value",
        "- one   \n\n\n\n- two",
        '{"code": "a  b", "a": 1, "a": 2}',
    ],
)
def test_code_and_doubtful_json_keep_their_bytes(text: str) -> None:
    shaped = (
        Optimiser(Policy(least_gain_tokens=0))
        .optimise(Conversation((Turn("tool", text),)))
        .conversation
    )
    assert shaped.turns[0].content == text


def test_a_repeat_points_to_the_first_and_small_ones_stay() -> None:
    big = "x" * 300
    turns = (
        Turn("tool", big, "c1"),
        Turn("tool", big, "c2"),
        Turn("tool", "ok", "c3"),
        Turn("tool", "ok", "c4"),
    )
    shaped = Optimiser(Policy()).optimise(Conversation(turns)).conversation.turns
    assert [turn.content for turn in shaped] == [
        big,
        "[same as the result of tool call c1]",
        "ok",
        "ok",
    ]


def test_repeated_log_lines_are_counted_with_both_stamps() -> None:
    log = "\n".join(f"2026-01-01T00:00:{second:02d}Z retry failed" for second in range(30))
    shaped = (
        Optimiser(Policy())
        .optimise(Conversation((Turn("tool", log),)))
        .conversation.turns[0]
        .content
    )
    assert (
        shaped
        == "2026-01-01T00:00:00Z retry failed [repeated 30 times, last at 2026-01-01T00:00:29Z]"
    )


def test_lossy_selection_is_off_unless_asked_for_and_spares_pinned_turns() -> None:
    text = "\n\n".join(
        [
            "The harbour opened in 1902 and serves grain ships.",
            "Cats sleep long.",
            "Bread needs yeast and time.",
        ]
        * 2
    )
    turns = (
        Turn("user", "When did the harbour open?"),
        Turn("tool", text, "c1"),
        Turn("tool", text + " ", "c2", pinned=True),
    )
    assert Optimiser(Policy()).optimise(Conversation(turns)).conversation.turns[1].content == text
    shaped = Optimiser(Policy(keep_share=0.4)).optimise(Conversation(turns)).conversation.turns
    assert "1902" in shaped[1].content and "passages left out" in shaped[1].content
    assert "Bread" in shaped[2].content


@given(TURNS, POLICIES)
def test_every_turn_has_a_decision(turns: list[Turn], policy: Policy) -> None:
    result = Optimiser(policy).optimise(Conversation(tuple(turns)))
    decided = {decision.block for decision in result.decisions}
    assert decided >= {f"turns[{index}]" for index in range(len(turns))}
    assert not any(
        decision.applied for decision in result.decisions
    ) or result.conversation.turns != tuple(turns)


def test_what_is_left_alone_says_why() -> None:
    turns = (
        Turn("system", "Be brief."),
        Turn("tool", PRETTY, "c1", breakpoint=True),
        Turn("user", "go"),
        Turn("tool", "ok", "c2"),
    )
    told = Optimiser(Policy()).optimise(Conversation(turns)).decisions
    before = "stands before a provider's breakpoint"
    assert [one.reason for one in told] == [
        before,
        before,
        "user text is never touched",
        "nothing to shorten",
    ]
    assert [one.tokens_before for one in told] == [one.tokens_after for one in told]


def test_a_block_whose_transform_fails_keeps_its_bytes_and_the_others_are_shaped() -> None:
    def broken(question: str, passages: Sequence[str]) -> Sequence[float]:
        raise RuntimeError("no embedder")

    passages = "\n\n".join(
        f"Passage {number} tells of harbours and of ships." for number in range(8)
    )
    turns = (
        Turn("user", "Which harbour?"),
        Turn("tool", passages + "   ", "c1"),
        Turn("tool", PRETTY, "c2"),
    )
    result = Optimiser(Policy(keep_share=0.5), similarity=broken).optimise(Conversation(turns))
    assert result.conversation.turns[1] == turns[1]
    assert result.conversation.turns[2].content == json.dumps(
        json.loads(PRETTY), separators=(",", ":")
    )
    told = {
        decision.block: decision.reason
        for decision in result.decisions
        if decision.transform == "fault"
    }
    assert told == {"turns[1]": "kept as sent after RuntimeError"}
    assert not any(
        decision.applied for decision in result.decisions if decision.block == "turns[1]"
    )


def test_every_block_has_its_decision_and_counts_add_up() -> None:
    result = Optimiser(Policy()).optimise(
        _call(1, (Turn("user", "go"), Turn("tool", PRETTY, "c1")))
    )
    assert {decision.transform for decision in result.decisions if decision.applied} >= {
        "volatile_last",
        "json",
    }
    assert result.estimated and result.tokens_after < result.tokens_before
