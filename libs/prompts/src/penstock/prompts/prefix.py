"""Prompts that a provider can read from its prefix cache: what makes them stable.

Providers cache prefixes that match byte for byte, in the order tools, system, messages. So equal
tools become equal bytes in every call, by what has no meaning: whitespace in their schemas, and
their order where it was seen to change. The order of properties and of turns is meaning and stays,
unless the target is known to take it otherwise: only then are keys sorted, and lines with a clock
or an id, which make every call a miss, moved to a turn at the end; and so are lines that were seen
to change.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Protocol

from penstock.prompts.conversation import Conversation, Policy, ToolSpec, Turn
from penstock.prompts.json_text import sort_keys

Tools = tuple[ToolSpec, ...]
NOTE = "Values of this call, moved here from the instructions:\n"
_INSTANT = (
    r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?\s*(?:Z|UTC|GMT|[+-]\d{2}:?\d{2})?"
)
_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_IDENTIFIER = rf"{_UUID}|(?:req|request|trace|run|call|session)[-_][\w-]{{6,}}|[0-9a-f]{{16,64}}"
_EPOCH = r"1[5-9]\d{8}(?:\.\d+|\d{3})?"
_LABEL = r"[A-Za-z][A-Za-z _-]{0,40}"
_VOLATILE_LINE = re.compile(
    rf"^\s*{_LABEL}\s*(?::|=|\bis\b)\s*(?:{_INSTANT}|{_IDENTIFIER}|{_EPOCH})\s*\.?\s*$",
    re.IGNORECASE,
)


class Known(Protocol):
    """What is known of an agent's earlier prompts."""

    def changing(self, lines: Sequence[str]) -> frozenset[int]:
        """The places of those lines of instructions that change from prompt to prompt."""

    def tools_vary(self, in_order: Tools, sent: Tools) -> bool:
        """Whether the tools, equal but for their order, came in another one before."""

    def compact(self, text: str) -> str | None:
        """A text without the white space between its tokens; see `json_text.compact`."""


def spaced_tools(tools: Tools, compact: Callable[[str], str | None]) -> Tools:
    """The tools in the order in which they came, their schemas without whitespace; as they are
    where the caller has set a breakpoint behind one, or a schema is not plain JSON.
    """
    if any(tool.breakpoint for tool in tools):
        return tools
    return tuple(
        replace(tool, parameters=compact(tool.parameters) or tool.parameters) for tool in tools
    )


def ordered_tools(spaced: Tools, *, sort_schema_keys: bool = False) -> Tools:
    """The tools in order of name, and on demand with sorted keys in their schemas; as they are
    where the caller has set a breakpoint behind one.

    A schema that is not plain JSON keeps its bytes.
    """
    if any(tool.breakpoint for tool in spaced):
        return spaced
    tools = [_with_sorted_keys(tool) for tool in spaced] if sort_schema_keys else spaced
    return tuple(sorted(tools, key=lambda tool: (tool.name, tool.description, tool.parameters)))


def _with_sorted_keys(tool: ToolSpec) -> ToolSpec:
    return replace(tool, parameters=sort_keys(tool.parameters) or tool.parameters)


def split_volatile(
    instructions: str, changing: frozenset[int] = frozenset()
) -> tuple[str, tuple[str, ...]]:
    """A system prompt without its volatile lines, and these lines.

    A line is volatile where all of it has the form `label: value` and the value is an instant with
    a time of day, an epoch or an identifier. A date or a number within a sentence is part of the
    meaning and stays. `changing` are the places of lines that are volatile whatever their form.
    """
    stable: list[str] = []
    volatile: list[str] = []
    for place, line in enumerate(instructions.split("\n")):
        moves = place in changing or _VOLATILE_LINE.match(line)
        (volatile if moves else stable).append(line)
    return "\n".join(stable), tuple(volatile)


def with_stable_prefix(
    conversation: Conversation, policy: Policy, known: Known
) -> tuple[Conversation, int]:
    """The conversation with stable tools, in one order where theirs was seen to change, and, where
    the policy knows that the target takes a later system turn, the volatile lines of its
    instructions in such a turn at the end.

    Only the leading system turns before a provider's breakpoint are changed. Returns the number of
    lines moved as well.
    """
    turns, moved = conversation.turns, 0
    if policy.later_system_turn:
        turns, moved = _with_volatile_last(turns, known)
    sent = spaced_tools(conversation.tools, known.compact)
    in_order = ordered_tools(sent, sort_schema_keys=policy.sort_schema_keys)
    return Conversation(turns, in_order if known.tools_vary(in_order, sent) else sent), moved


def _with_volatile_last(sent: tuple[Turn, ...], known: Known) -> tuple[tuple[Turn, ...], int]:
    leading = tuple(takewhile(_may_lose_lines, sent))
    changing = known.changing([line for turn in leading for line in turn.content.split("\n")])
    turns = list(sent)
    moved: list[str] = []
    first_line = 0
    for index, turn in enumerate(leading):
        length = turn.content.count("\n") + 1
        own = frozenset(
            place - first_line for place in changing if 0 <= place - first_line < length
        )
        stable, volatile = split_volatile(turn.content, own)
        if volatile and stable.strip():
            turns[index] = replace(turn, content=stable)
            moved += [line.strip() for line in volatile]
        first_line += length
    if moved:
        turns.append(Turn("system", NOTE + "\n".join(moved)))
    return tuple(turns), len(moved)


def _may_lose_lines(turn: Turn) -> bool:
    free = turn.role == "system" and not turn.breakpoint and not turn.fixed
    return free and not turn.content.startswith(NOTE)


def shared_prefix_bytes(earlier: str, later: str) -> int:
    """Number of leading bytes that two serialised prompts share."""
    a = earlier.encode("utf-8", "surrogatepass")
    b = later.encode("utf-8", "surrogatepass")
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[:middle] == b[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def serialised(conversation: Conversation) -> bytes:
    """The prompt as bytes, in the order in which providers match prefixes.

    Different prompts give different bytes.
    """
    return b"\0".join(_segments(conversation))


def _segments(conversation: Conversation) -> list[bytes]:
    """The tools and turns as bytes."""
    segments = [
        _joined("tool", tool.name, tool.description, tool.parameters) for tool in conversation.tools
    ]
    for turn in conversation.turns:
        text = _joined(turn.role, turn.tool_call_id, turn.content)
        segments.append(text + b"\0" + turn.rest if turn.rest else text)
    return segments


def _joined(*fields: str) -> bytes:
    return b"\0".join(field.encode("utf-8", "surrogatepass") for field in fields)
