"""The estimate of a provider's prefix cache: never more than is shared, and bounded memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from penstock.prompts.conversation import Conversation, ToolSpec, Turn
from penstock.prompts.prefix import serialised
from penstock.prompts.prefix_history import BLOCK_BYTES, PrefixHistory

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


def test_only_the_most_recently_used_conversations_are_remembered() -> None:
    history = PrefixHistory(max_conversations=2)
    prompt = Conversation((Turn("user", "hello"),))
    for key in ("a", "b", "a", "c"):
        history.record(key, prompt)
    assert [history.record(key, prompt).has_previous for key in ("a", "b")] == [True, False]
