"""Prefix stability: equal tools and instructions become equal bytes in every call.

Providers cache prefixes that match byte for byte, in the order tools, system, messages. A clock in
the first line of the system prompt makes every call a miss, so such lines move to the end.
"""

from __future__ import annotations

import re
from dataclasses import replace

from penstock.prompts.conversation import Conversation, ToolSpec, Turn
from penstock.prompts.json_text import sort_keys

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


def stable_tools(tools: tuple[ToolSpec, ...]) -> tuple[ToolSpec, ...]:
    """The tools in order of name, the keys of their schemas in order.

    A schema that is not plain JSON keeps its bytes.
    """
    ordered = sorted(tools, key=lambda tool: (tool.name, tool.description, tool.parameters))
    return tuple(
        replace(tool, parameters=sort_keys(tool.parameters) or tool.parameters) for tool in ordered
    )


def split_volatile(instructions: str) -> tuple[str, tuple[str, ...]]:
    """A system prompt without its volatile lines, and these lines.

    A line is volatile where all of it has the form `label: value` and the value is an instant with
    a time of day, an epoch or an identifier. A date or a number within a sentence is part of the
    meaning and stays.
    """
    stable: list[str] = []
    volatile: list[str] = []
    for line in instructions.split("\n"):
        (volatile if _VOLATILE_LINE.match(line) else stable).append(line)
    return "\n".join(stable), tuple(volatile)


def with_stable_prefix(conversation: Conversation) -> tuple[Conversation, int]:
    """The conversation with ordered tools and the volatile lines of its system prompt at the end.

    Only the leading system turns before a provider's breakpoint are changed. Returns the number of
    lines moved as well.
    """
    turns = list(conversation.turns)
    moved: list[str] = []
    for index, turn in enumerate(turns):
        if turn.role != "system" or turn.breakpoint or turn.content.startswith(NOTE):
            break
        stable, volatile = split_volatile(turn.content)
        if volatile and stable.strip():
            turns[index] = replace(turn, content=stable)
            moved += [line.strip() for line in volatile]
    if moved:
        turns.append(Turn("system", NOTE + "\n".join(moved)))
    return Conversation(tuple(turns), stable_tools(conversation.tools)), len(moved)


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
