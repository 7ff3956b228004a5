"""How many tokens shaping leaves out of a prompt."""

from __future__ import annotations

import json

from penstock.prompts.conversation import Conversation, ToolSpec, Turn
from penstock.prompts.left_out import Pieces, tokens_left_out

ASKED = Turn("user", "which flights are there on Tuesday?")


def prompt(*turns: Turn, tools: tuple[ToolSpec, ...] = ()) -> Conversation:
    return Conversation((ASKED, *turns), tools)


def result(text: str) -> Turn:
    return Turn("tool", text, "call_1")


def test_a_prompt_that_is_sent_as_it_came_leaves_nothing_out() -> None:
    came = prompt(result('{"a": 1}'))
    assert tokens_left_out(came, came, Pieces()) == 0


def test_white_space_between_signs_joins_pieces() -> None:
    # given a result of which only the white space is left out
    value = {"from": "SFO", "seats": 3}
    came = prompt(result(json.dumps(value)))
    sent = prompt(result(json.dumps(value, separators=(",", ":"))))
    # then `":` and ` "`, `",` and ` "` become one piece each, and ` 3` stays one
    assert tokens_left_out(came, sent, Pieces()) == 2
    assert tokens_left_out(sent, came, Pieces()) == -2


def test_lines_that_move_count_nothing_and_those_that_are_added_count_against() -> None:
    came = prompt(Turn("system", "now: 12:00\nyou help"))
    moved = prompt(Turn("system", "you help"), Turn("system", "now: 12:00"))
    noted = prompt(Turn("system", "you help"), Turn("system", "lines that change:\nnow: 12:00"))
    assert tokens_left_out(came, moved, Pieces()) == 0
    assert tokens_left_out(came, noted, Pieces()) == -4


def test_the_order_and_white_space_of_schemas_count_nothing_and_descriptions_do() -> None:
    long, short = ToolSpec("find", "finds one or more flights", "{ }"), ToolSpec("find", "finds")
    other = ToolSpec("book", "books")
    came, sent = prompt(tools=(long, other)), prompt(tools=(other, short))
    assert tokens_left_out(came, prompt(tools=(other, long)), Pieces()) == 0
    assert tokens_left_out(came, sent, Pieces()) == 4


def test_a_tokenizer_counts_where_there_is_one() -> None:
    came, sent = prompt(result("abcdef")), prompt(result("abc"))
    assert tokens_left_out(came, sent, len) == 3


def test_what_is_remembered_is_bounded() -> None:
    pieces = Pieces(max_lines=2)
    texts = [f"{word} " * 40 for word in ("one", "two", "three")]
    assert [pieces(text) for text in (*texts, *texts)] == [41, 41, 41] * 2
    assert len(pieces) == 2
