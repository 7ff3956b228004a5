"""What a provider's prefix cache would have done for prompts that were sent to it directly."""

from __future__ import annotations

from penstock.prompts.conversation import Conversation, ToolSpec, Turn
from penstock.prompts.direct_prompts import CacheKey, DirectPrompts, PromptTokens

INSTRUCTIONS = "You help the customers of an airline, and you follow its rules. " * 80
"""5,120 characters: of the provider's tokens below four characters each are one."""
TTL_S = 300.0


def key(now_s: float = 0.0, owner: str = "acme", form: str = "") -> CacheKey:
    return CacheKey(owner, {"response_format": form} if form else {}, now_s)


def prompt(*said: str, head: str = "", tools: tuple[str, ...] = ()) -> Conversation:
    turns = (Turn("system", head + INSTRUCTIONS), *(Turn("user", text) for text in said))
    return Conversation(turns, tuple(ToolSpec(name) for name in tools))


def test_a_prompt_that_is_sent_as_it_came_is_as_reported_whatever_that_is() -> None:
    books, reported = DirectPrompts(), PromptTokens(1_500, 37, 11)
    for number in range(3):
        came = prompt(*["hello"] * number)
        assert books.tokens(books.follow(key(), came, came), reported) == reported


def test_a_clock_before_the_instructions_would_have_been_written_again_each_time() -> None:
    # given prompts whose clock was moved to the end, so that the provider reads all but that
    books = DirectPrompts()
    first = books.follow(key(), prompt("a", head="12:00 "), prompt("a", "12:00 "))
    assert books.tokens(first, PromptTokens(1_290, 0, 1_280)) == (1_290, 0, 1_280)
    # when
    second = books.follow(key(5.0), prompt("a", head="12:01 "), prompt("a", "12:01 "))
    # then a direct call reads nothing
    assert books.tokens(second, PromptTokens(1_290, 1_280, 0)) == (1_290, 0, 1_280)


def test_a_shorter_result_is_read_in_full_by_the_next_direct_call() -> None:
    books = DirectPrompts()
    long, short = "a result with much white space. " * 32, "a result. " * 26
    first = books.follow(key(), prompt(long), prompt(short), left_out=192)
    assert books.tokens(first, PromptTokens(1_350, 0, 1_280)) == (1_542, 0, 1_536)
    # when the conversation goes on
    second = books.follow(key(1.0), prompt(long, "more"), prompt(short, "more"), left_out=192)
    # then all of the first prompt is read, in steps
    assert books.tokens(second, PromptTokens(1_360, 1_280, 0)) == (1_552, 1_536, 0)


def test_an_answer_from_memory_would_have_warmed_the_cache() -> None:
    books, asked = DirectPrompts(), prompt("a")
    reported = PromptTokens(1_290, 0, 1_280)
    books.tokens(books.follow(key(), asked, asked), reported)
    # when the same is asked again and again, and answered from memory, for longer than a provider
    # keeps a prefix
    again = [books.follow(key(now_s), asked, None) for now_s in (200.0, 400.0, 600.0)]
    # then each direct call reads what the one before it has written
    assert [books.tokens(each, reported) for each in again] == [(1_290, 1_280, 0)] * 3
    # and one that is sent after all finds nothing at the provider, where a direct one would
    sent = books.follow(key(800.0), asked, asked)
    assert books.tokens(sent, reported) == (1_290, 1_280, 0)


def test_a_prefix_is_kept_no_longer_than_the_provider_does() -> None:
    books, asked = DirectPrompts(), prompt("a")
    reported = PromptTokens(1_290, 0, 1_280)
    books.tokens(books.follow(key(), asked, asked), reported)
    late = books.follow(key(TTL_S + 1), asked, None)
    assert books.tokens(late, reported) == (1_290, 0, 1_280)


def test_owners_settings_and_tools_have_caches_of_their_own() -> None:
    reported = PromptTokens(1_290, 0, 1_280)
    known = prompt("a", tools=("find", "book"))
    others = (
        (key(owner="other"), known),
        (key(form="json"), known),
        (key(), prompt("a", tools=("book", "find"))),
    )
    for other, came in others:
        books = DirectPrompts()
        books.tokens(books.follow(key(), known, known), reported)
        assert books.tokens(books.follow(other, came, None), reported) == reported


def test_a_provider_that_reports_no_writing_is_charged_for_none() -> None:
    books, asked = DirectPrompts(), prompt("a")
    books.tokens(books.follow(key(), asked, asked), PromptTokens(1_290, 0, 0))
    books.tokens(books.follow(key(), asked, asked), PromptTokens(1_290, 1_280, 0))
    again = books.follow(key(), asked, None)
    assert books.tokens(again, PromptTokens(1_290, 0, 0)) == (1_290, 1_280, 0)


def test_a_provider_that_has_never_reported_a_cache_has_none() -> None:
    books, asked = DirectPrompts(), prompt("a")
    first = books.follow(key(), asked, asked)
    books.tokens(first, PromptTokens(1_290, 0, 0))
    again = books.follow(key(), asked, None)
    assert books.tokens(again, PromptTokens(1_290, 0, 0)) == (1_290, 0, 0)


def test_what_was_read_of_prompts_sent_elsewhere_a_direct_call_would_have_read_too() -> None:
    # given a router that has just started, and a conversation that another one began
    books = DirectPrompts()
    shaped = books.follow(key(), prompt("a", head="12:00 "), prompt("a", "12:00 "))
    assert books.tokens(shaped, PromptTokens(1_290, 1_280, 0)) == (1_290, 1_280, 0)


def test_what_is_remembered_is_bounded() -> None:
    books = DirectPrompts(max_blocks=20, max_owners=2)
    for number in range(9):
        came = prompt(f"question {number}")
        owner = key(owner=f"o{number}")
        books.tokens(books.follow(owner, came, came), PromptTokens(1_290, 0, 1_280))
    assert len(books) == 20
