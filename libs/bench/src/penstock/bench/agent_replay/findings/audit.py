"""Is a reused answer the one that was recorded, and does a shaped prompt still say the same? Pure.

Tool calls are compared as values, writes apart from reads. Texts are compared as they are, as JSON
where they are JSON, and else by their details: identifiers, numbers and dates.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from enum import Enum
from typing import Any

from penstock.bench.agent_replay.traffic.recordings import Json, text_of
from penstock.prompts.json_text import compact
from penstock.prompts.prefix import NOTE
from penstock.prompts.references import resolve_references

READS = ("get_", "search_", "list_", "calculate", "think")
"""How the names of tools begin that change nothing; all others are taken for writes."""
_DETAIL = re.compile(r"[\w.+-]+@[\w.-]+|\b(?=\w*\d)\w+(?:[.:/-]\w+)*\b")


class Verdict(Enum):
    """What a reused answer is beside the recorded one."""

    EQUAL = "equal"
    ALIKE = "other words, the same details"
    WRONG = "wrong"


def compare(answer: Json, recorded: Json) -> Verdict:
    """What an answer is beside the recorded one."""
    if _calls(answer) != _calls(recorded):
        return Verdict.WRONG
    text, expected = text_of(answer), text_of(recorded)
    if text == expected or _same_json(text, expected):
        return Verdict.EQUAL
    if _is_json(expected) or Counter(_DETAIL.findall(text)) != Counter(_DETAIL.findall(expected)):
        return Verdict.WRONG
    return Verdict.ALIKE


def best_of(answer: Json, recorded: Sequence[Json]) -> Verdict:
    """The best verdict beside several answers that were recorded for the same request."""
    found = {compare(answer, each) for each in recorded}
    return next(each for each in Verdict if each in found)


def writes(answer: Json) -> bool:
    """Whether an answer calls a tool that may change something."""
    return any(not name.startswith(READS) for name, _ in _calls(answer))


def _calls(message: Json) -> list[tuple[str, str]]:
    """Names and canonical arguments of an answer's calls."""
    return [
        (call["function"]["name"], _canonical(call["function"]["arguments"]))
        for call in message.get("tool_calls") or []
    ]


def _canonical(text: str) -> str:
    try:
        return json.dumps(json.loads(text), sort_keys=True)
    except ValueError:
        return text


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | list)
    except ValueError:
        return False


def _same_json(one: str, other: str) -> bool:
    return _is_json(one) and _is_json(other) and _canonical(one) == _canonical(other)


def prompt_faults(sent: Json, asked: Json) -> list[str]:
    """What a model reads otherwise in a prompt that was sent than in the one that was asked; empty
    where it says the same.

    Lines of instructions may stand elsewhere, tools in another order, and tool results in a shorter
    form that leads back to the same value.
    """
    faults = []
    if _instructions(sent["messages"]) != _instructions(asked["messages"]):
        faults.append("instructions")
    if _functions(sent.get("tools", ())) != _functions(asked.get("tools", ())):
        faults.append("tools")
    turns, expected = _others(sent["messages"]), _others(asked["messages"])
    if len(turns) != len(expected):
        return [*faults, "number of turns"]
    known: dict[str, str] = {}
    for number, (turn, original) in enumerate(zip(turns, expected, strict=True)):
        if not _says_the_same(turn, original, known):
            faults.append(f"turn {number}")
    return faults


def _instructions(messages: Sequence[Json]) -> Counter[str]:
    """The lines of all system turns, without order."""
    texts = (text_of(turn).replace(NOTE, "") for turn in messages if turn["role"] == "system")
    return Counter(line.strip() for text in texts for line in text.split("\n") if line.strip())


def _functions(tools: Sequence[Json]) -> dict[str, Any]:
    """Tools by name; the values of their schemas without order."""
    found = {}
    for tool in tools:
        function = tool["function"]
        parameters = function.get("parameters") or {}
        found[function["name"]] = (function.get("description", ""), parameters)
    return found


def _others(messages: Sequence[Json]) -> list[Json]:
    return [turn for turn in messages if turn["role"] != "system"]


def _says_the_same(turn: Json, original: Json, known: dict[str, str]) -> bool:
    """Whether a turn is the original; `known` holds earlier results by the id of their call."""
    if turn["role"] != original["role"] or _calls(turn) != _calls(original):
        return False
    if turn["role"] != "tool":
        return text_of(turn) == text_of(original)
    identifier = original["tool_call_id"]
    text = resolve_references(text_of(turn), known.__getitem__)
    known.setdefault(identifier, compact(text) or text)
    if turn["tool_call_id"] != identifier:
        return False
    return bool(_value(text) == _value(text_of(original)))


def _value(text: str) -> Any:
    """The JSON value with numbers as they are written, or the words of a text that is no JSON."""
    try:
        return json.loads(text, parse_float=str, parse_int=str, object_pairs_hook=list)
    except ValueError:
        return text.split()
