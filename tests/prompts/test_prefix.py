"""The estimate of a provider's prefix cache: never more than is shared, and bounded memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.prompts.conversation import Conversation, ToolSpec, Turn
from penstock.prompts.prefix import BLOCK_BYTES, PrefixHistory, serialised

TURNS = st.lists(
    st.builds(
        Turn,
        st.sampled_from(["system", "user", "tool"]),
        st.sampled_from(["a" * 700, "b", "c" * 40]),
    )
)
TOOL = ToolSpec("find", "finds", "{}")


def shared_bytes(a: bytes, b: bytes) -> int:
    for position, (one, other) in enumerate(zip(a, b, strict=False)):
        if one != other:
            return position
    return min(len(a), len(b))


@given(TURNS, TURNS)
def test_the_share_is_the_common_prefix_in_whole_blocks(
    first: list[Turn], second: list[Turn]
) -> None:
    earlier, later = (Conversation(tuple(turns), (TOOL,)) for turns in (first, second))
    history = PrefixHistory()
    assert not history.record("key", earlier).has_previous
    prefix = history.record("key", later)
    assert prefix.has_previous
    a, b = serialised(earlier), serialised(later)
    whole_blocks = shared_bytes(a, b) // BLOCK_BYTES * BLOCK_BYTES
    assert prefix.share == (1.0 if a == b else whole_blocks / len(b))


@given(TURNS)
def test_the_decision_counts_the_tokens_that_are_not_shared(turns: list[Turn]) -> None:
    history = PrefixHistory()
    history.record("key", Conversation(tuple(turns), (TOOL,)))
    prefix = history.record("key", Conversation((*turns, Turn("user", "more")), (TOOL,)))
    decision = prefix.decision(1000)
    assert not decision.applied
    assert decision.tokens_before - decision.tokens_after == round(1000 * prefix.share)


def tool(name: str, description: str = "") -> ToolSpec:
    return ToolSpec(name, description, "{}")


SYSTEM, ASKED, SAID = Turn("system", "help"), Turn("user", "hi"), Turn("assistant", "yes")
WITH_CLOCK = "it was changed, and has a time or an identifier in line 2"
BEFORE = Conversation((SYSTEM, ASKED, SAID), (tool("a"), tool("b")))


@pytest.mark.parametrize(
    ("after", "broken"),
    [
        (Conversation((*BEFORE.turns, Turn("user", "more")), BEFORE.tools), ""),
        (BEFORE, ""),
        (Conversation(BEFORE.turns[:2], BEFORE.tools), ""),
        (
            Conversation(BEFORE.turns, (tool("b"), tool("a"))),
            "it broke at tools[0]: the tools are in another order",
        ),
        (
            Conversation(BEFORE.turns, (tool("a"), tool("aa"), tool("b"))),
            "it broke at tools[1]: a tool was added",
        ),
        (
            Conversation(BEFORE.turns, (*BEFORE.tools, tool("c"))),
            "it broke at tools[2]: a tool was added",
        ),
        (Conversation(BEFORE.turns, (tool("a"),)), "it broke at tools[1]: a tool was left out"),
        (
            Conversation(BEFORE.turns, (tool("a"), tool("b", "new"))),
            "it broke at tools[1]: a tool was changed",
        ),
        (
            Conversation((SYSTEM, Turn("user", "ho"), SAID), BEFORE.tools),
            "it broke at turns[1] (user): it was changed",
        ),
        (
            Conversation((SYSTEM, Turn("user", "ho"), ASKED, SAID), BEFORE.tools),
            "it broke at turns[1] (user): turns were inserted",
        ),
        (
            Conversation((SYSTEM, SAID, Turn("user", "more")), BEFORE.tools),
            "it broke at turns[1] (assistant): turns before it were left out",
        ),
        (
            Conversation((SYSTEM, ASKED, replace(SAID, rest=b"call")), BEFORE.tools),
            "it broke at turns[2] (assistant): it was changed",
        ),
        (
            Conversation((Turn("system", "help\nTime: 2026-03-01T10:00:00Z"), ASKED), BEFORE.tools),
            f"it broke at turns[0] (system): {WITH_CLOCK}",
        ),
    ],
)
def test_what_broke_a_prefix_is_said_without_its_texts(after: Conversation, broken: str) -> None:
    history = PrefixHistory()
    history.record("key", BEFORE)
    prefix = history.record("key", after)
    assert prefix.broken == broken
    assert prefix.decision(10).reason.endswith(broken)


def test_only_the_most_recently_used_conversations_are_remembered() -> None:
    history = PrefixHistory(max_conversations=2)
    prompt = Conversation((Turn("user", "hello"),))
    for key in ("a", "b", "a", "c"):
        history.record(key, prompt)
    assert [history.record(key, prompt).has_previous for key in ("a", "b")] == [True, False]
