"""The last answered prompt of each conversation: what is compared with it, and bounded memory."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.prompts.answered_prompts import MAX_BRANCHES, MAX_PROMPT_BYTES
from penstock.prompts.conversation import Conversation, ToolSpec, Turn
from penstock.prompts.prefix_breaks import BreakKind
from penstock.prompts.prefix_cost import PrefixOutcome, PrefixRead, ReportedPrompt
from penstock.prompts.prefix_history import ComparedPrompt, PrefixHistory
from penstock.prompts.prompt_digests import TURN_BYTES, KnownTools

TURNS = st.lists(
    st.builds(
        Turn,
        st.sampled_from(["system", "user", "tool"]),
        st.sampled_from(["a" * 700, "b", "c" * 40]),
    )
)
TOOL = ToolSpec("find", "finds", "{}")
KEY = "conversation"


def clock(second: int, *more: str) -> Conversation:
    """A conversation whose instructions say the time."""
    said = tuple(Turn("user", text) for text in ("hi", *more))
    return Conversation((Turn("system", f"Be kind.\nNow: 10:00:{second:02}"), *said))


class Sent:
    """Prompts of one conversation, each answered as soon as it is sent, a second apart."""

    def __init__(self, history: PrefixHistory | None = None) -> None:
        self.history, self.now_s = history or PrefixHistory(), 0.0

    def compare(self, prompt: Conversation, model: str = "m") -> ComparedPrompt:
        self.now_s += 1.0
        return self.history.compare(KEY, prompt, {"model": model})

    def answer(
        self, compared: ComparedPrompt, cached: int = 0, at_s: float = 0.0, server: str = "a"
    ) -> PrefixRead:
        at_s = at_s or self.now_s
        reported = ReportedPrompt(2_000, cached, 0, at_s, server, f"r{at_s:g}")
        return self.history.answered(compared, reported)

    def send(self, prompt: Conversation, cached: int = 0, **how: str) -> PrefixRead:
        return self.answer(self.compare(prompt), cached, **how)  # type: ignore[arg-type]


@given(TURNS, TURNS)
def test_the_share_is_what_both_begin_with_in_whole_tools_and_turns(
    first: list[Turn], second: list[Turn]
) -> None:
    first, second = [Turn("user", "hi"), *first], [Turn("user", "hi"), *second]
    sent, later = Sent(), Conversation(tuple(second), (TOOL,))
    sent.send(Conversation(tuple(first), (TOOL,)))
    shared = 0
    while shared < min(len(first), len(second)) and first[shared] == second[shared]:
        shared += 1
    tool = len("findfinds{}")
    size = tool + sum(len(turn.content) for turn in second)
    known = tool + sum(len(turn.content) for turn in second[:shared])
    assert sent.compare(later).share == known / size


def test_only_the_most_recently_used_conversations_are_remembered() -> None:
    history = PrefixHistory(max_conversations=2)
    prompt = Conversation((Turn("user", "hello"),))
    for key in ("a", "b", "a", "c"):
        history.answered(history.compare(key, prompt), ReportedPrompt(1, 0, 0, 0.0))
    known = [history.compare(key, prompt).previous is not None for key in ("a", "b", "c")]
    assert known == [True, False, True]


def test_memory_is_bounded_whatever_the_prompts_are() -> None:
    """A line of a head that holds nothing but numbers takes most."""
    history = PrefixHistory(max_bytes=1_000_000)
    head = "\n".join(f"{n} 10:0{n % 10} {n} {n} {n} {n} {n} {n} {n} {n}" for n in range(300))
    prompt = Conversation((Turn("system", head), *(Turn("user", str(n)) for n in range(50))))
    tracemalloc.start()
    try:
        for key in range(20):
            history.answered(history.compare(key, prompt), ReportedPrompt(1, 0, 0, 0.0))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 500_000 < history.size_bytes <= 1_000_000
    assert taken < 1.5 * history.size_bytes, "what it says it takes is what it takes"
    assert history.compare(19, prompt).previous is not None
    assert history.compare(0, prompt).previous is None


def test_a_prompt_that_is_too_large_is_not_remembered() -> None:
    history = PrefixHistory()
    for turns in (MAX_PROMPT_BYTES // TURN_BYTES + 1, 100):
        prompt = Conversation(tuple(Turn("user", str(n)) for n in range(turns)))
        history.answered(history.compare(turns, prompt), ReportedPrompt(1, 0, 0, 0.0))
        assert (history.compare(turns, prompt).previous is None) == (turns > 100)
    assert history.size_bytes < MAX_PROMPT_BYTES


def test_tools_that_conversations_share_are_kept_once_and_bounded() -> None:
    tools = KnownTools(max_tools=3)
    first = tools.digests_of(ToolSpec("a"))
    assert tools.digests_of(ToolSpec("a")) is first
    for name in "bcdef":
        tools.digests_of(ToolSpec(name))
    assert len(tools) == 3
    assert tools.digests_of(ToolSpec("a")) is not first


def test_a_prompt_that_was_not_answered_is_compared_with_by_none() -> None:
    sent = Sent()
    sent.send(clock(1))
    failed = sent.compare(clock(2))
    assert failed.broken is not None
    again = sent.compare(clock(2))
    assert again.broken == failed.broken, "the provider may never have seen the one that failed"
    assert sent.answer(again).outcome is PrefixOutcome.BROKEN


def test_a_prompt_is_compared_with_what_was_answered_before_it_was_sent() -> None:
    sent = Sent()
    first, second = sent.compare(clock(1)), sent.compare(clock(1, "more"))
    sent.answer(first)
    assert sent.answer(second).outcome is PrefixOutcome.FIRST, "nobody is blamed for two at once"


def test_of_two_at_once_each_is_gone_on_from() -> None:
    sent = Sent()
    for ends in (("a",), ("b",)):
        sent.answer(sent.compare(clock(1, *ends)), at_s=sent.now_s)
    for ends in (("a", "c"), ("b", "d"), ("a", "c", "e")):
        compared = sent.compare(clock(1, *ends))
        assert compared.broken is None, "a branch is compared with its own last prompt"
        sent.answer(compared)


def test_few_branches_are_kept_and_the_latest_are() -> None:
    sent = Sent()
    for number in range(MAX_BRANCHES + 1):
        sent.send(clock(1, f"branch {number}"))
    known = [sent.compare(clock(1, f"branch {n}", "on")).broken is None for n in range(2)]
    assert known == [False, True]


def test_an_edited_turn_is_a_branch_and_is_named_once() -> None:
    sent = Sent()
    sent.send(clock(1, "a", "b"))
    assert sent.send(clock(1, "A", "b")).outcome is PrefixOutcome.BROKEN
    assert sent.compare(clock(1, "A", "b", "c")).broken is None


def long(*said: str) -> Conversation:
    turns = [Turn("user" if n % 2 == 0 else "assistant", text) for n, text in enumerate(said)]
    return Conversation((Turn("system", "Be kind."), *turns))


TALK = tuple(f"turn {number}" for number in range(8))


@pytest.mark.parametrize(
    ("now", "kind"),
    [
        (long(*TALK[2:], "more"), BreakKind.HISTORY_TRUNCATED),
        (long("So far: three things.", *TALK[5:], "more"), BreakKind.HISTORY_SUMMARISED),
        (long("another beginning", *TALK[7:], "more"), None),
        (long("another beginning", "and nothing of it"), None),
    ],
)
def test_a_conversation_that_begins_otherwise_is_known_by_the_turns_that_it_kept(
    now: Conversation, kind: BreakKind | None
) -> None:
    sent = Sent()
    sent.send(long(*TALK))
    compared = sent.compare(now)
    assert (compared.broken.kind if compared.broken else None) is kind
    assert (compared.previous is not None) == (kind is not None)


def test_a_break_that_goes_on_says_since_when() -> None:
    sent = Sent()
    for second in range(4):
        sent.send(clock(second))
    compared = sent.compare(clock(4))
    assert compared.broken is not None and compared.broken.kind is BreakKind.CLOCK
    assert compared.times == 4
    assert compared.since is not None and compared.since.id == "r2", "the second was the first"
    sent.answer(compared)
    assert sent.compare(clock(4)).times == 0


def test_another_model_is_a_break_and_going_back_to_the_first_is_none() -> None:
    sent = Sent()
    sent.answer(sent.compare(clock(1), "small"))
    other = sent.compare(clock(1, "more"), "big")
    assert other.broken is not None and other.broken.kind is BreakKind.MODEL
    sent.answer(other)
    assert sent.compare(clock(1, "more", "and"), "small").broken is None


def test_a_prompt_that_goes_to_another_model_after_all_is_compared_with_that_models() -> None:
    sent = Sent()
    sent.answer(sent.compare(clock(1), "big"))
    sent.answer(sent.compare(clock(2), "small"))
    moved = sent.history.at_model(sent.compare(clock(2, "more"), "small"), "big")
    assert moved.broken is not None and moved.broken.kind is BreakKind.CLOCK


def test_another_instance_is_blamed_before_the_provider_and_after_the_prompt() -> None:
    sent = Sent()
    sent.send(clock(1))
    assert sent.send(clock(1), server="b").outcome is PrefixOutcome.MOVED
    assert sent.send(clock(2), server="c").outcome is PrefixOutcome.BROKEN
    assert sent.send(clock(2), server="c").outcome is PrefixOutcome.EVICTED


def test_a_conversation_that_begins_again_is_no_eviction_of_the_long_one() -> None:
    """Equal beginnings without a session are taken for one conversation."""
    sent = Sent()
    long = ReportedPrompt(50_000, 0, 0, 1.0, "a")
    sent.history.answered(sent.compare(clock(1, "a", "b", "c")), long)
    short = sent.history.answered(sent.compare(clock(1)), long._replace(input_tokens=1_500))
    assert short.readable_tokens == short.lost_tokens == 1_408
    tiny = sent.history.answered(sent.compare(clock(1)), long._replace(input_tokens=900))
    assert tiny.outcome is PrefixOutcome.TOO_SHORT


def test_estimates_blame_nobody() -> None:
    sent = Sent()
    sent.send(clock(1))
    reported = ReportedPrompt(2_000, 0, 0, 5.0, "a", "r", estimated=True)
    read = sent.history.answered(sent.compare(clock(2)), reported)
    assert (read.outcome, read.lost_tokens) == (PrefixOutcome.UNKNOWN, 0)


def test_no_text_is_remembered() -> None:
    """No word of it, and no number: one too long to stand in a digest by chance."""
    sent, secret = Sent(), "my secret is 4711081547110815471108154711"
    sent.send(clock(1, secret))
    remembered = repr(sent.compare(clock(2, secret)))
    assert not [text for text in ("secret", "4711081547110815", "kind.") if text in remembered]
