"""What is remembered of texts: the same as is computed, within a bound, and not computed twice."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from penstock.prompts.conversation import Conversation, Policy, ToolSpec, Turn
from penstock.prompts.known_texts import JsonTexts, KnownTexts
from penstock.prompts.optimiser import Optimiser

RESULT = json.dumps({"flights": [{"id": number, "to": "Oslo"} for number in range(20)]}, indent=2)
SCHEMA = '{ "type": "object" }'
CHAT = Conversation(
    (
        Turn("system", "You help."),
        Turn("tool", RESULT, tool_call_id="c1"),
        Turn("user", "Which one?"),
    ),
    (ToolSpec("search", "Finds flights.", SCHEMA),),
)


class Counted:
    """A function that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, text: str) -> str:
        self.calls += 1
        if text == "bad":
            raise ValueError(text)
        return text.upper()


def test_a_text_that_comes_again_is_not_computed_again() -> None:
    upper = Counted()
    known = KnownTexts(upper, len)
    assert [known("a"), known("b"), known("a")] == ["A", "B", "A"]
    assert upper.calls == 2


def test_nothing_and_none_are_results_like_others() -> None:
    texts = JsonTexts()
    assert (texts.compact("no JSON"), texts.compact("no JSON")) == (None, None)
    assert texts.values("[]") == texts.values("[]")
    assert texts.compact.bytes == len("no JSON")


def test_a_failure_is_raised_each_time() -> None:
    upper = Counted()
    known = KnownTexts(upper, len)
    for _ in range(2):
        with pytest.raises(ValueError, match="bad"):
            known("bad")
    assert (upper.calls, known.bytes) == (2, 0)


def test_what_is_remembered_stays_within_its_bytes_and_the_oldest_goes() -> None:
    upper = Counted()
    known = KnownTexts(upper, len, max_bytes=100)
    for number in range(50):
        known(f"{number:010}")
        assert known.bytes <= 100
    known(f"{49:010}")
    assert upper.calls == 50
    known(f"{0:010}")
    assert upper.calls == 51


def test_a_text_that_would_push_all_others_out_is_not_remembered() -> None:
    upper = Counted()
    known = KnownTexts(upper, len, max_bytes=100)
    known("a")
    known("b" * 90)
    known("b" * 90)
    known("a")
    assert upper.calls == 3


def test_threads_get_the_same_results_within_the_same_bound() -> None:
    known = KnownTexts(str.upper, len, max_bytes=200)
    texts = [f"text {number % 40}" for number in range(4_000)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(known, texts)) == [text.upper() for text in texts]
    assert known.bytes <= 200


def test_an_optimiser_reads_a_result_and_a_schema_once() -> None:
    read: list[str] = []

    def compacted(text: str) -> str | None:
        read.append(text)
        return text.replace(" ", "").replace("\n", "")

    optimiser = Optimiser(Policy(stable_prefix=True, lossless=True))
    optimiser.texts.compact = KnownTexts(compacted, lambda shorter: len(shorter or ""))
    first = optimiser.optimise(CHAT)
    longer = Conversation((*CHAT.turns, Turn("user", "And then?")), CHAT.tools)
    second = optimiser.optimise(longer)
    assert sorted(read) == sorted([SCHEMA, RESULT])
    assert second.conversation.turns[: len(CHAT.turns)] == first.conversation.turns


def test_a_prompt_becomes_the_same_whatever_was_seen_before() -> None:
    warm, cold = Optimiser(Policy(lossless=True)), Optimiser(Policy(lossless=True))
    warm.optimise(CHAT)
    assert warm.optimise(CHAT) == cold.optimise(CHAT)
