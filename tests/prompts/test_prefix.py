"""The estimate of what a provider's prefix cache can read: never more than what is really shared,
and forgetting within bounds.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from penstock.prompts.conversation import Conversation, ToolSpec, Turn
from penstock.prompts.prefix import BLOCK_BYTES, Prefixes, serialised

TURNS = st.lists(
    st.builds(
        Turn,
        st.sampled_from(["system", "user", "tool"]),
        st.sampled_from(["a" * 700, "b", "c" * 40]),
    )
)
TOOL = ToolSpec("find", "finds", "{}")


@given(TURNS, TURNS)
def test_the_share_is_that_of_the_common_head_less_one_block_at_most(
    first: list[Turn], second: list[Turn]
) -> None:
    prefixes = Prefixes()
    earlier, later = (Conversation(tuple(turns), (TOOL,)) for turns in (first, second))
    assert not prefixes.sent("k", earlier).known
    prefix = prefixes.sent("k", later)
    assert prefix.known
    a, b = serialised(earlier), serialised(later)
    shared = next(
        (at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )
    assert prefix.share == (1.0 if a == b else shared // BLOCK_BYTES * BLOCK_BYTES / len(b))
    decision = prefix.decision(1000)
    assert (decision.applied, decision.tokens_before - decision.tokens_after) == (
        False,
        round(1000 * prefix.share),
    )


def test_only_the_latest_conversations_are_remembered() -> None:
    prefixes, prompt = Prefixes(kept=2), Conversation((Turn("user", "hello"),))
    for key in ("a", "b", "a", "c"):
        prefixes.sent(key, prompt)
    assert [prefixes.sent(key, prompt).known for key in ("a", "b")] == [True, False]
