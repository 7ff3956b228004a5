"""Lines that change from prompt to prompt are found whatever their form, and no others."""

from __future__ import annotations

import sys

import pytest
from penstock.prompts import changing_lines
from penstock.prompts.changing_lines import MAX_AGENTS, MAX_CHANGING, SETTLED, ChangingLines
from penstock.prompts.conversation import Conversation, Policy, Turn
from penstock.prompts.optimiser import Optimiser
from penstock.prompts.prefix import NOTE

POLICY_TEXT = "You are an agent of an airline, and you follow its policy of 2024 to the letter."
HEADS = {
    "a sentence": "It is now {0:02d}:{1:02d}:07 PM on Sunday; you have helped {1} customers today.",
    "JSON": '{{"now": "10:{0:02d}:{1:02d}", "nonce": "a{1}c4f{0}", "load": 0.{1}}}',
    "XML": "  <clock>{0} Mar, 10:{1:02d}</clock>",
    "a counter": "call no. {1} of shift {0}",
}


def prompt(head: str, number: int, *more: str) -> list[str]:
    return [HEADS[head].format(number % 12, 10 + number), "Be brief.", POLICY_TEXT, *more]


@pytest.mark.parametrize("head", HEADS)
def test_a_line_is_known_from_the_second_prompt_on(head: str) -> None:
    known = ChangingLines()
    found = [known.find("acme", prompt(head, number)) for number in range(1, 5)]
    assert found == [frozenset(), frozenset({0}), frozenset({0}), frozenset({0})]


def test_other_words_and_lines_that_come_and_go_do_not_change() -> None:
    known = ChangingLines()
    prompts = (
        ["Answer in French.", POLICY_TEXT],
        ["Answer in German.", POLICY_TEXT],
        ["Answer in French.", "You may offer 3 seats.", POLICY_TEXT],
        ["Answer in French.", POLICY_TEXT],
        ["Answer in French.", "You may offer 3 seats.", POLICY_TEXT],
    )
    assert {known.find("acme", lines) for lines in prompts} == {frozenset()}


def test_a_line_that_stays_the_same_settles() -> None:
    known = ChangingLines()
    first, second = (["Refunds take 30 days.", POLICY_TEXT], ["Refunds take 60 days.", POLICY_TEXT])
    known.find("acme", first)
    found = [known.find("acme", second) for _ in range(SETTLED + 1)]
    assert found == [*[frozenset({0})] * SETTLED, frozenset()]


def test_a_body_of_data_stays_where_it_is() -> None:
    known = ChangingLines()

    def table(number: int) -> list[str]:
        return [POLICY_TEXT, *(f"row {row}: {number}" for row in range(MAX_CHANGING + 1))]

    assert [known.find("acme", table(number)) for number in range(3)] == [frozenset()] * 3


def test_what_one_owner_sends_shows_in_nothing_that_another_gets() -> None:
    known = ChangingLines()
    for number in range(1, 4):
        known.find("acme", prompt("a counter", number))
    assert known.find("other", prompt("a counter", 9)) == frozenset()


def test_agents_and_lines_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changing_lines, "MAX_LINES", 8)
    known = ChangingLines()
    for number in range(2 * MAX_AGENTS):
        known.find(f"owner {number}", prompt("a counter", number))
    # The first owner's agent was forgotten, the last one's was not.
    assert known.find("owner 0", prompt("a counter", 3)) == frozenset()
    last = f"owner {2 * MAX_AGENTS - 1}"
    assert known.find(last, prompt("a counter", 3)) == frozenset({0})
    long = [f"line {number}" for number in range(9)]
    assert known.find("acme", long) == known.find("acme", long[::-1]) == frozenset()


def test_a_prompt_keeps_its_prefix_once_its_changing_lines_are_known() -> None:
    optimiser = Optimiser(Policy(later_system_turn=True))
    shaped = [
        optimiser.optimise(
            Conversation(
                (Turn("system", "\n".join(prompt("XML", number))), Turn("user", "Which flight?"))
            )
        ).conversation.turns
        for number in range(1, 4)
    ]
    stable = "\n".join(prompt("XML", 1)[1:])
    assert shaped[0][0].content == "\n".join(prompt("XML", 1))
    for number in (2, 3):
        moved = prompt("XML", number)[0].strip()
        assert shaped[number - 1] == (
            Turn("system", stable),
            Turn("user", "Which flight?"),
            Turn("system", NOTE + moved),
        )


def test_no_rule_no_learning() -> None:
    optimiser = Optimiser(Policy())
    for number in range(1, 4):
        sent = Conversation((Turn("system", "\n".join(prompt("XML", number))),))
        assert optimiser.optimise(sent).conversation == sent


def test_owners_share_a_policy_and_no_knowledge() -> None:
    optimiser = Optimiser(Policy(later_system_turn=True))
    one, same, other = map(optimiser.for_owner, ("acme", "acme", "other"))
    assert one == same != other
    first, second = (
        Conversation((Turn("system", "\n".join(prompt("XML", number))),)) for number in (1, 2)
    )
    one.optimise(first)
    assert other.optimise(second).conversation == second
    assert same.optimise(second).conversation != second


def test_no_text_is_kept() -> None:
    known = ChangingLines()
    for number in range(1, 4):
        known.find("acme", prompt("JSON", number))
    assert "brief" not in repr(known)
    assert sys.getsizeof(repr(known)) < 2_000
