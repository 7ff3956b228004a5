"""The optimiser: what may change, what never does, and that a prefix once sent stays the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.prompts.conversation import Conversation, Policy, ToolSpec, Turn
from penstock.prompts.optimiser import Optimiser
from penstock.prompts.prefix import NOTE, shared_prefix_bytes, split_volatile
from penstock.prompts.templates import Template

SYSTEM = (
    "Current time: 2026-03-01T10:00:{:02d}Z\n"
    "Request id: 1f0c6f0e-93a1-4b8e-9a51-0f5d2c7e{:04d}\n"
    "You book flights. The sale ends 2026-03-05."
)
PRETTY = json.dumps({"flights": [{"number": "HAT136", "price": 1.50}] * 6}, indent=2)
TOOLS = (
    ToolSpec("search", "find", '{"type": "object", "required": ["to"]}'),
    ToolSpec("book", "buy", '{"b": 1, "a": 2}'),
)


def agent_call(number: int, turns: tuple[Turn, ...]) -> Conversation:
    """The `number`-th call of an agent whose system prompt and order of tools change each time."""
    system = Turn("system", SYSTEM.format(number, number))
    return Conversation((system, *turns), TOOLS if number % 2 else TOOLS[::-1])


def text_of(conversation: Conversation) -> str:
    return repr(conversation.tools) + repr(conversation.turns)


def optimise(turns: Sequence[Turn], policy: Policy) -> tuple[Turn, ...]:
    return Optimiser(policy).optimise(Conversation(tuple(turns))).conversation.turns


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


def test_the_next_call_begins_with_the_same_tools_and_turns() -> None:
    history = (
        Turn("user", "to Oslo"),
        Turn("assistant", ""),
        Turn("tool", PRETTY, tool_call_id="c1"),
        Turn("user", "the early one"),
    )
    first_sent, second_sent = agent_call(1, history[:1]), agent_call(2, history)
    optimiser = Optimiser(Policy(later_system_turn=True))
    optimiser.optimise(agent_call(0, history[:1]))  # Its tools are known to change their order.
    first = optimiser.optimise(first_sent).conversation
    second = optimiser.optimise(second_sent).conversation
    assert first.tools == second.tools
    assert first.turns[:2] == second.turns[:2]
    shared_before = shared_prefix_bytes(text_of(first_sent), text_of(second_sent))
    assert shared_prefix_bytes(text_of(first), text_of(second)) > shared_before


def test_volatile_lines_move_to_a_last_turn() -> None:
    conversation = agent_call(3, (Turn("user", "hello"),))
    shaped = Optimiser(Policy(later_system_turn=True)).optimise(conversation).conversation
    assert shaped.turns[-1].content.startswith(NOTE)
    assert "2026-03-01T10:00:03Z" in shaped.turns[-1].content
    for line in conversation.turns[0].content.split("\n"):
        assert any(line in turn.content for turn in shaped.turns)


@pytest.mark.wire_case(10)
@given(TURNS)
def test_no_system_turn_is_made_unless_the_target_is_known_to_take_it(turns: list[Turn]) -> None:
    clock = Turn("system", "You help.\nCurrent time: 2026-11-24T10:00:00Z\nBe brief.")
    sent = Conversation((clock, *turns), TOOLS)
    shaped = Optimiser(Policy()).optimise(sent).conversation
    assert [turn.role for turn in shaped.turns] == [turn.role for turn in sent.turns]
    assert shaped.turns[0] == clock


@pytest.mark.wire_case(11)
def test_the_order_of_a_schemas_properties_stays_and_its_whitespace_goes() -> None:
    schema = '{"type": "object", "properties": {"reasoning": {}, "answer": {}}}'
    tools = (ToolSpec("zoom", "", schema), ToolSpec("find", "", "not JSON"))
    sent = Conversation((Turn("user", "go"),), tools)
    shaped = Optimiser(Policy()).optimise(sent).conversation
    assert [(tool.name, tool.parameters) for tool in shaped.tools] == [
        ("zoom", '{"type":"object","properties":{"reasoning":{},"answer":{}}}'),
        ("find", "not JSON"),
    ]


@pytest.mark.wire_case(11)
def test_the_keys_of_schemas_are_sorted_by_a_rule_once_they_came_in_another_order() -> None:
    first, second = (
        Conversation((Turn("user", "go"),), (ToolSpec("zoom", "", schema),))
        for schema in ('{"type": "object", "a": {}}', '{"a": {}, "type": "object"}')
    )
    optimiser = Optimiser(Policy(sort_schema_keys=True))
    assert optimiser.optimise(first).conversation.tools[0].parameters == '{"type":"object","a":{}}'
    for sent in (second, first):
        shaped = optimiser.optimise(sent).conversation
        assert shaped.tools[0].parameters == '{"a":{},"type":"object"}'


@pytest.mark.wire_case(11)
def test_tools_before_a_callers_breakpoint_stay_as_they_are() -> None:
    tools = (ToolSpec("zoom", "", "{ }", breakpoint=True), ToolSpec("find", "", "{ }"))
    sent = Conversation((Turn("user", "go"),), tools)
    assert Optimiser(Policy()).optimise(sent).conversation == sent


def test_a_turn_of_several_pieces_is_sent_as_it_is() -> None:
    turns = (Turn("user", "go"), Turn("tool", PRETTY, "c1", fixed=True))
    assert optimise(turns, Policy()) == turns


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
def test_lines_with_a_meaning_do_not_move(line: str) -> None:
    assert split_volatile(line) == (line, ())


POLICIES = st.builds(
    Policy,
    stable_prefix=st.booleans(),
    lossless=st.booleans(),
    later_system_turn=st.booleans(),
    sort_schema_keys=st.booleans(),
    min_gain_tokens=st.integers(0, 20),
    min_repeat_bytes=st.integers(0, 300),
    named_values=st.booleans(),
    min_value_bytes=st.integers(20, 300),
    templates=st.sampled_from(
        [(), (Template("hat", "HAT136", "H"),), (Template("line", "line\n\n", "l"),)]
    ),
)
"""Every transform but lossy selection, which a second pass may apply to its own result."""


@given(TURNS, POLICIES)
def test_the_optimiser_is_deterministic_and_idempotent(turns: list[Turn], policy: Policy) -> None:
    optimiser = Optimiser(policy)
    once = optimiser.optimise(Conversation(tuple(turns)))
    assert optimiser.optimise(Conversation(tuple(turns))) == once
    assert optimiser.optimise(once.conversation).conversation == once.conversation


@given(TURNS, POLICIES, st.sampled_from([1.0, 0.4]))
def test_only_tool_results_behind_the_last_breakpoint_change(
    turns: list[Turn], policy: Policy, keep_share: float
) -> None:
    shaped = optimise(turns, replace(policy, stable_prefix=False, keep_share=keep_share))
    last_breakpoint = max((n for n, turn in enumerate(turns) if turn.breakpoint), default=-1)
    for index, (before, after) in enumerate(zip(turns, shaped, strict=True)):
        if before.role != "tool" or index <= last_breakpoint:
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
def test_code_lists_and_ambiguous_json_keep_their_bytes(text: str) -> None:
    (shaped,) = optimise([Turn("tool", text)], Policy(min_gain_tokens=0))
    assert shaped.content == text


def test_a_repeated_result_becomes_a_reference_and_a_short_one_does_not() -> None:
    large = "x" * 300
    texts = (large, large, "ok", "ok")
    turns = [Turn("tool", text, f"c{n}") for n, text in enumerate(texts, start=1)]
    assert [turn.content for turn in optimise(turns, Policy())] == [
        large,
        "[same as the result of tool call c1]",
        "ok",
        "ok",
    ]


def test_repeated_log_lines_become_one_line_with_both_timestamps() -> None:
    log = "\n".join(f"2026-01-01T00:00:{second:02d}Z retry failed" for second in range(30))
    (shaped,) = optimise([Turn("tool", log)], Policy())
    assert shaped.content == (
        "2026-01-01T00:00:00Z retry failed [repeated 30 times, last at 2026-01-01T00:00:29Z]"
    )


def test_lossy_selection_is_off_by_default_and_leaves_pinned_turns_alone() -> None:
    passages = [
        "The harbour opened in 1902 and serves grain ships.",
        "Cats sleep long.",
        "Bread needs yeast and time.",
    ]
    text = "\n\n".join(passages * 2)
    turns = (
        Turn("user", "When did the harbour open?"),
        Turn("tool", text, "c1"),
        Turn("tool", text + " ", "c2", pinned=True),
    )
    assert optimise(turns, Policy())[1].content == text
    shaped = optimise(turns, Policy(keep_share=0.4))
    assert "1902" in shaped[1].content
    assert "passages left out" in shaped[1].content
    assert "Bread" in shaped[2].content


@given(TURNS, POLICIES)
def test_every_turn_has_a_decision_and_an_applied_one_changed_something(
    turns: list[Turn], policy: Policy
) -> None:
    result = Optimiser(policy).optimise(Conversation(tuple(turns)))
    blocks = {decision.block for decision in result.decisions}
    assert blocks >= {f"turns[{index}]" for index in range(len(turns))}
    if any(decision.applied for decision in result.decisions):
        assert result.conversation.turns != tuple(turns)


def test_an_untouched_turn_has_the_reason_in_its_decision() -> None:
    turns = (
        Turn("system", "Be brief."),
        Turn("tool", PRETTY, "c1", breakpoint=True),
        Turn("user", "go"),
        Turn("tool", "ok", "c2"),
    )
    decisions = Optimiser(Policy()).optimise(Conversation(turns)).decisions
    assert [decision.reason for decision in decisions] == [
        "stands before a provider's breakpoint",
        "stands before a provider's breakpoint",
        "user text is never touched",
        "nothing to shorten",
    ]
    assert all(decision.tokens_before == decision.tokens_after for decision in decisions)


def test_a_failing_transform_leaves_its_block_and_the_others_are_shaped() -> None:
    def failing_similarity(question: str, passages: Sequence[str]) -> Sequence[float]:
        raise RuntimeError("no embedder")

    passages = "\n\n".join(f"Passage {n} tells of harbours and of ships." for n in range(8))
    turns = (
        Turn("user", "Which harbour?"),
        Turn("tool", passages + "   ", "c1"),
        Turn("tool", PRETTY, "c2"),
    )
    optimiser = Optimiser(Policy(keep_share=0.5), similarity=failing_similarity)
    result = optimiser.optimise(Conversation(turns))
    assert result.conversation.turns[1] == turns[1]
    minified = json.dumps(json.loads(PRETTY), separators=(",", ":"))
    assert result.conversation.turns[2].content == minified
    of_failed = [decision for decision in result.decisions if decision.block == "turns[1]"]
    assert [(decision.transform, decision.reason) for decision in of_failed] == [
        ("fault", "kept as sent after RuntimeError")
    ]


def test_the_result_says_which_transforms_were_applied_and_that_tokens_are_estimated() -> None:
    turns = (Turn("user", "go"), Turn("tool", PRETTY, "c1"))
    result = Optimiser(Policy(later_system_turn=True)).optimise(agent_call(1, turns))
    applied = {decision.transform for decision in result.decisions if decision.applied}
    assert applied >= {"volatile_last", "json"}
    assert result.estimated
    assert result.tokens_after < result.tokens_before
