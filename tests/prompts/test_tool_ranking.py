"""What is read of tools, and how probable each is to be needed."""

from __future__ import annotations

import json
import math

import pytest
from penstock.prompts.conversation import ToolSpec
from penstock.prompts.selection import Bm25Index
from penstock.prompts.tool_ranking import (
    EVIDENCE,
    is_readable,
    probabilities,
    spaced,
    text_to_embed,
    text_to_match,
    word_counts,
)

WEATHER = ToolSpec(
    "get_weather",
    "The weather of a place.",
    json.dumps(
        {
            "type": "object",
            "properties": {
                "place": {"type": "string", "description": "A town."},
                "when": {
                    "type": "object",
                    "properties": {"dayOfWeek": {"enum": ["monday", "sunday"]}},
                },
                "units": {"type": "array", "items": {"properties": {"unitName": {}}}},
            },
        }
    ),
)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("getUserDetails", "get User Details"),
        ("Movies_1_BuyTicket", "Movies 1 Buy Ticket"),
        ("uber.ride", "uber ride"),
        ("__", ""),
    ],
)
def test_identifiers_are_read_as_words(name: str, said: str) -> None:
    assert spaced(name) == said


def test_nested_parameters_are_read_and_their_values_matched() -> None:
    read = "get weather: The weather of a place. place, when, day Of Week, units, unit Name"
    assert text_to_embed(WEATHER) == read
    assert text_to_match(WEATHER).startswith(read)
    for word in ("town", "monday", "sunday"):
        assert word in text_to_match(WEATHER)


@pytest.mark.parametrize("parameters", ["", "{", "[1]", '"text"', '{"properties": [1]}'])
def test_a_tool_without_a_usable_schema_is_read_by_its_name(parameters: str) -> None:
    assert text_to_embed(ToolSpec("get_weather", "Rain?", parameters)) == "get weather: Rain?"


def test_a_schema_without_end_is_read_to_a_depth() -> None:
    deep = '{"properties": {"inner": ' * 40 + "{}" + "}}" * 40
    assert text_to_embed(ToolSpec("a", "", deep)).count("inner") == 6


def test_probabilities_sum_to_one_and_follow_both_scores() -> None:
    probable = probabilities([0.5, 0.5, 0.1], [4.0, 1.0, 1.0])
    assert math.fsum(probable) == pytest.approx(1)
    assert probable[0] > probable[1] > probable[2]


def test_where_nothing_matches_well_no_tool_is_preferred_by_much() -> None:
    weak, strong = EVIDENCE / 100, EVIDENCE * 100
    assert max(probabilities([0, 0], [weak, 0])) < 0.6
    assert max(probabilities([0, 0], [strong, 0])) > 0.99


def test_words_of_the_schema_count() -> None:
    tools = (WEATHER, ToolSpec("get_time", "The time."))
    scores = Bm25Index([word_counts(tool) for tool in tools]).scores("is it fine on Sunday")
    assert scores[0] > scores[1] == 0


@pytest.mark.parametrize(
    ("text", "readable"),
    [
        ("Where is my order?", True),
        ("Où est ma commande n° 12 ?", True),
        ("최근 임진왜란에 대한 정보", False),
        ("获取阿迪达斯的p4工单", False),
        ("12:30", False),
        ("", False),
    ],
)
def test_other_scripts_are_not_read(text: str, readable: bool) -> None:
    assert is_readable(text) is readable
