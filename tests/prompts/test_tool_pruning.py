"""Which tools a conversation is sent with, from its turns and their probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from penstock.prompts.conversation import ToolSpec
from penstock.prompts.tool_pruning import (
    MIN_TOOLS,
    Asked,
    Called,
    Pruned,
    PruningPolicy,
    Step,
    Untouched,
    fewest,
    prune,
)

NAMES = [f"tool_{letter}" for letter in "jihgfedcba"]
TOOLS = [ToolSpec(name, "does something", "{}") for name in NAMES]
POLICY = PruningPolicy(omitted_share=0.05)


def about(question: str) -> list[float]:
    """Half of 0.98 for each tool that a text names, the rest shared; the same for all without."""
    named = [name for name in NAMES if name in question]
    if not named:
        return [1 / len(NAMES)] * len(NAMES)
    rest = 0.02 / (len(NAMES) - len(named))
    return [0.98 / len(named) if name in named else rest for name in NAMES]


def pruned(
    *steps: Step,
    tools: Sequence[ToolSpec] = TOOLS,
    demanded: tuple[str, ...] = (),
    policy: PruningPolicy = POLICY,
) -> Pruned | Untouched:
    return prune(tools, steps, demanded, about, policy)


def kept(*steps: Step, demanded: tuple[str, ...] = (), policy: PruningPolicy = POLICY) -> list[str]:
    done = pruned(*steps, demanded=demanded, policy=policy)
    assert isinstance(done, Pruned)
    names = [tool.name for tool in done.kept]
    assert sorted([*names, *done.left_out]) == sorted(NAMES)
    return names


FIRST = Asked("I want tool_c and also tool_b today")
OTHER = Asked("and now something else, which is what tool_a does, please")


def test_the_fewest_tools_are_kept_that_leave_out_at_most_the_share_allowed() -> None:
    assert fewest([0.1, 0.6, 0.3], (), 0.11) == [1, 2]
    assert fewest([0.1, 0.6, 0.3], (), 0.05) == [1, 2, 0]
    assert fewest([0.1, 0.6, 0.3], [0], 0.05) == [0, 1, 2]
    assert fewest([0.1, 0.6, 0.3], [1, 2], 0.11) == [1, 2]


def test_the_first_turn_chooses_and_names_are_in_order() -> None:
    assert kept(FIRST) == ["tool_b", "tool_c"]


def test_the_order_in_which_tools_come_does_not_matter() -> None:
    turned = prune(TOOLS[::-1], [FIRST], (), lambda text: about(text)[::-1], POLICY)
    assert turned == pruned(FIRST)


ALL_BACK = ["tool_b", "tool_c", *sorted(set(NAMES) - {"tool_b", "tool_c"})]


def test_turns_that_need_what_is_kept_change_nothing() -> None:
    again = Asked("tool_b is what I want from you now, my friend")
    assert kept(FIRST, Called(("tool_c",)), again, Called(("tool_b", "tool_c"))) == kept(FIRST)


def test_a_later_turn_that_may_need_another_tool_brings_all_back_behind_those_kept() -> None:
    assert kept(FIRST, OTHER) == ALL_BACK
    assert kept(FIRST, OTHER, FIRST, Called(("tool_j",))) == ALL_BACK


def test_a_short_turn_is_read_with_those_before_it() -> None:
    assert kept(FIRST, Asked("yes, please")) == kept(FIRST)
    assert kept(FIRST, Asked("yes"), Asked("do it"), Asked("thanks")) == kept(FIRST)


def test_a_call_to_a_tool_that_was_left_out_brings_all_back_behind_those_kept() -> None:
    assert kept(FIRST, Called(("tool_j",))) == ALL_BACK
    assert kept(FIRST, Called(("tool_j",)), OTHER) == ALL_BACK


def test_a_later_turn_that_cannot_be_read_brings_all_back() -> None:
    assert len(kept(FIRST, Asked("最近有什么新消息吗 " * 10))) == len(NAMES)


def test_a_call_to_a_tool_that_is_not_there_changes_nothing() -> None:
    assert kept(FIRST, Called(("gone",))) == kept(FIRST)


@pytest.mark.parametrize("first", [Asked("hello there"), Asked("최근 소식"), Asked("")])
def test_all_tools_stay_as_they_came_where_none_stands_out(first: Asked) -> None:
    assert pruned(first) == Untouched("no tools stand out")
    assert pruned(first, Called(("tool_a",)), FIRST) == Untouched("no tools stand out")


def test_without_a_user_turn_all_stay() -> None:
    assert pruned() == Untouched("no user turn")
    assert pruned(Called(("tool_a",))) == Untouched("no user turn")


def test_few_tools_and_equal_names_stay() -> None:
    few = pruned(FIRST, tools=TOOLS[: MIN_TOOLS - 1])
    assert few == Untouched("fewer than 8 tools")
    twice = pruned(FIRST, tools=[*TOOLS, TOOLS[0]])
    assert twice == Untouched("two tools have the same name")


def test_a_tool_that_the_call_demands_is_sent_behind_the_others() -> None:
    assert kept(FIRST, demanded=("tool_a", "tool_b")) == ["tool_b", "tool_c", "tool_a"]


def test_tools_that_are_always_kept_are_kept() -> None:
    policy = replace(POLICY, always_keep=frozenset({"tool_a", "gone"}))
    assert kept(FIRST, policy=policy) == ["tool_a", "tool_b", "tool_c"]


def test_a_providers_breakpoint_stays_behind_the_tools() -> None:
    marked = [replace(TOOLS[0], breakpoint=True), *TOOLS[1:]]
    done = pruned(FIRST, tools=marked)
    assert isinstance(done, Pruned)
    assert [(tool.name, tool.breakpoint) for tool in done.kept] == [
        ("tool_b", False),
        ("tool_c", True),
    ]
