"""What broke a prefix: each kind of change is named, with its place, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from penstock.prompts.conversation import Conversation, ToolSpec, Turn
from penstock.prompts.prefix_breaks import BreakKind, find_break
from penstock.prompts.prompt_digests import digests_of

HEAD = """You help with flights.  Be brief.
Now: 2026-03-01 10:00:00 UTC
Today is March 1, 2026.
Request-ID: 7f9c24e8-3b12-4fef-91d2-0a2b3c4d5e6f
Session: sess-0a1b2c3d4e
This is call 17 of the day.
Caf\u00e9s are closed."""
SCHEMA = '{"type": "object", "properties": {"from": {"type": "string"}, "to": {"type": "string"}}}'
SWAPPED = '{"properties": {"to": {"type": "string"}, "from": {"type": "string"}}, "type": "object"}'
FIND, BOOK = ToolSpec("find", "finds flights", SCHEMA), ToolSpec("book", "books one", SCHEMA)
TURNS = (
    Turn("system", HEAD),
    Turn("user", "Find a flight to Rome."),
    Turn("assistant", "", rest=b"call c1"),
    Turn("tool", "LH1, LH2 and LH3 at 10:00", tool_call_id="c1"),
    Turn("assistant", "LH1 is the first."),
    Turn("user", "Look at this.", rest=b"image: abc", fixed=True),
    Turn("assistant", "A plane."),
)
WITHOUT_IMAGES = (b"", b"", b"", b"", b"", b"image", b"")
BEFORE = Conversation(TURNS, (FIND, BOOK))
NEXT = Turn("user", "Book it.")
MODEL = {"model": "large", "reasoning": "low"}


def changed(index: int, **fields: object) -> Conversation:
    """The conversation with one turn changed, and gone on."""
    turns = [*TURNS, NEXT]
    turns[index] = replace(turns[index], **fields)  # type: ignore[arg-type]
    return replace(BEFORE, turns=tuple(turns))


def in_head(old: str, new: str) -> Conversation:
    assert old in HEAD
    return changed(0, content=HEAD.replace(old, new))


def with_tools(*tools: ToolSpec) -> Conversation:
    return Conversation((*TURNS, NEXT), tools)


def with_turns(*turns: Turn) -> Conversation:
    return replace(BEFORE, turns=turns)


BREAKS = {
    "a clock": (in_head("10:00:00", "10:00:07"), BreakKind.CLOCK, "turns[0]", 2),
    "a date": (in_head("March 1,", "March 2,"), BreakKind.DATE, "turns[0]", 3),
    "a request id": (in_head("7f9c24e8", "7f9c24e9"), BreakKind.REQUEST_ID, "turns[0]", 4),
    "a session id": (in_head("0a1b2c3d4e", "0a1b2c3d4f"), BreakKind.SESSION_ID, "turns[0]", 5),
    "a counter": (in_head("call 17", "call 18"), BreakKind.COUNTER, "turns[0]", 6),
    "tools in another order": (with_tools(BOOK, FIND), BreakKind.TOOLS_REORDERED, "tools[0]", 0),
    "a tool more": (
        with_tools(FIND, BOOK, ToolSpec("end")),
        BreakKind.TOOL_ADDED,
        "tools[2]",
        0,
    ),
    "a tool less": (with_tools(BOOK), BreakKind.TOOL_REMOVED, "tools[0]", 0),
    "a description": (
        with_tools(FIND, replace(BOOK, description="books two")),
        BreakKind.TOOL_DESCRIPTION,
        "tools[1]",
        0,
    ),
    "keys in another order": (
        with_tools(replace(FIND, parameters=SWAPPED), BOOK),
        BreakKind.TOOL_KEYS_REORDERED,
        "tools[0]",
        0,
    ),
    "another schema": (
        with_tools(replace(FIND, parameters='{"type": "object"}'), BOOK),
        BreakKind.TOOL_CHANGED,
        "tools[0]",
        0,
    ),
    "white space": (in_head("flights.  Be", "flights. Be"), BreakKind.WHITE_SPACE, "turns[0]", 0),
    "line ends": (in_head("\n", "\r\n"), BreakKind.LINE_ENDS, "turns[0]", 0),
    "the form of Unicode": (
        in_head("\u00e9", "e\u0301"),
        BreakKind.UNICODE_FORM,
        "turns[0]",
        0,
    ),
    "the oldest turns left out": (
        with_turns(TURNS[0], *TURNS[3:], NEXT),
        BreakKind.HISTORY_TRUNCATED,
        "turns[1]",
        0,
    ),
    "a summary": (
        with_turns(TURNS[0], Turn("user", "So far: LH1 was found."), *TURNS[5:], NEXT),
        BreakKind.HISTORY_SUMMARISED,
        "turns[1]",
        0,
    ),
    "an old turn": (
        changed(1, content="Find a train to Rome."),
        BreakKind.OLD_TURN_EDITED,
        "turns[1]",
        0,
    ),
    "another tool call": (changed(2, rest=b"call c2"), BreakKind.OLD_TURN_EDITED, "turns[2]", 0),
    "a shorter result": (
        changed(3, content="LH1, LH2 and others"),
        BreakKind.TOOL_RESULT_SHORTENED,
        "turns[3]",
        0,
    ),
    "a late system turn": (
        with_turns(*TURNS[:4], Turn("system", "Hurry."), *TURNS[4:], NEXT),
        BreakKind.SYSTEM_INSERTED,
        "turns[4]",
        0,
    ),
    "a turn in between": (
        with_turns(*TURNS[:4], Turn("user", "And?"), *TURNS[4:], NEXT),
        BreakKind.TURNS_INSERTED,
        "turns[4]",
        0,
    ),
    "an image": (changed(5, rest=b"image: abd"), BreakKind.IMAGE, "turns[5]", 0),
}


@pytest.mark.parametrize("name", BREAKS)
def test_each_kind_of_change_is_named_with_its_place(name: str) -> None:
    after, kind, place, line = BREAKS[name]
    broken = find_break(
        digests_of(BEFORE, MODEL, WITHOUT_IMAGES), digests_of(after, MODEL, WITHOUT_IMAGES)
    )
    assert broken is not None
    assert (broken.kind, broken.place, broken.line) == (kind, place, line)


@pytest.mark.parametrize(
    "after", [BEFORE, with_turns(*TURNS, NEXT), with_turns(*TURNS[:4])], ids=str
)
def test_a_prompt_that_goes_on_breaks_nothing(after: Conversation) -> None:
    before = digests_of(BEFORE, MODEL, WITHOUT_IMAGES)
    assert find_break(before, digests_of(after, MODEL, WITHOUT_IMAGES, before)) is None


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({**MODEL, "model": "small"}, BreakKind.MODEL),
        ({**MODEL, "reasoning": "high"}, BreakKind.PARAMETER),
        ({"model": "large"}, BreakKind.PARAMETER),
    ],
)
def test_another_model_or_parameter_is_a_break(settings: dict[str, str], kind: BreakKind) -> None:
    after = with_turns(*TURNS, NEXT)
    broken = find_break(digests_of(BEFORE, MODEL), digests_of(after, settings))
    assert broken is not None
    assert broken.kind is kind


def test_the_model_is_named_before_tools_and_tools_before_parameters() -> None:
    before = digests_of(BEFORE, MODEL)
    after = with_tools(BOOK, FIND)
    both = find_break(before, digests_of(after, {"model": "small", "reasoning": "high"}))
    assert both is not None and both.kind is BreakKind.MODEL
    tools = find_break(before, digests_of(after, {**MODEL, "reasoning": "high"}))
    assert tools is not None and tools.kind is BreakKind.TOOLS_REORDERED


def with_breakpoint(turns: tuple[Turn, ...], index: int) -> Conversation:
    return with_turns(
        *(replace(turn, breakpoint=place == index) for place, turn in enumerate(turns))
    )


@pytest.mark.parametrize(
    ("before", "after", "broken"), [(3, 7, False), (3, 3, False), (3, 1, True), (0, 21, True)]
)
def test_a_breakpoint_must_find_an_earlier_one_again(before: int, after: int, broken: bool) -> None:
    long = (*TURNS, *(Turn("user", str(number)) for number in range(20)))
    found = find_break(
        digests_of(with_breakpoint(TURNS, before), MODEL),
        digests_of(with_breakpoint(long, after), MODEL),
    )
    assert (found is not None and found.kind is BreakKind.BREAKPOINT) == broken


def test_what_is_known_of_the_previous_prompt_is_taken_from_it() -> None:
    before = digests_of(BEFORE, MODEL, WITHOUT_IMAGES)
    after = with_turns(*TURNS, NEXT)
    again = digests_of(after, MODEL, WITHOUT_IMAGES, before)
    assert again == digests_of(after, MODEL, WITHOUT_IMAGES)
    assert again.turns[0].lines is before.turns[0].lines


def test_a_break_says_where_it_is_in_words_and_what_may_mend_it() -> None:
    later = in_head("10:00:00", "10:00:07")
    broken = find_break(digests_of(BEFORE, MODEL), digests_of(later, MODEL))
    assert str(broken) == "turns[0] (system), line 2: a time in it changed"
    assert broken is not None and broken.repair == "later_system_turn"


@pytest.mark.parametrize("text", ["", "\n" * 1_000, "\ud800", "1:" * 5_000, "a" * 100_000])
def test_texts_of_any_form_are_compared(text: str) -> None:
    made: Callable[[str], Conversation] = lambda end: with_turns(Turn("system", text + end))  # noqa: E731
    broken = find_break(digests_of(made("a"), MODEL), digests_of(made("b"), MODEL))
    assert broken is not None
    assert broken.kind is BreakKind.OLD_TURN_EDITED
