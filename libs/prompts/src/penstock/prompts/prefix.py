"""Prompts that a provider can read from its prefix cache: what makes them stable.

Providers cache prefixes that match byte for byte, in the order tools, system, messages. So equal
tools become equal bytes in every call, by what has no meaning: the order of the tools, whitespace
in their schemas. The order of properties and of turns is meaning and stays, unless the target is
known to take it otherwise: only then are keys sorted, and lines with a clock or an id, which make
every call a miss, moved to a turn at the end; and so are lines that were seen to change.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import takewhile

from penstock.prompts.conversation import Conversation, Policy, ToolSpec, Turn
from penstock.prompts.json_text import compact, sort_keys

NOTE = "Values of this call, moved here from the instructions:\n"
_INSTANT = (
    r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?\s*(?:Z|UTC|GMT|[+-]\d{2}:?\d{2})?"
)
_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_IDENTIFIER = rf"{_UUID}|(?:req|request|trace|run|call|session)[-_][\w-]{{6,}}|[0-9a-f]{{16,64}}"
_EPOCH = r"1[5-9]\d{8}(?:\.\d+|\d{3})?"
_LABEL = r"[A-Za-z][A-Za-z _-]{0,40}"
Changing = Callable[[Sequence[str]], frozenset[int]]
"""The places of those lines of instructions that are known to change from prompt to prompt."""
_VOLATILE_LINE = re.compile(
    rf"^\s*{_LABEL}\s*(?::|=|\bis\b)\s*(?:{_INSTANT}|{_IDENTIFIER}|{_EPOCH})\s*\.?\s*$",
    re.IGNORECASE,
)


def stable_tools(
    tools: tuple[ToolSpec, ...], *, sort_schema_keys: bool = False
) -> tuple[ToolSpec, ...]:
    """The tools in order of name, their schemas without whitespace, and on demand with sorted keys.

    A schema that is not plain JSON keeps its bytes. Where the caller has set a breakpoint behind a
    tool, all stay as they are.
    """
    if any(tool.breakpoint for tool in tools):
        return tools
    written = sort_keys if sort_schema_keys else compact
    ordered = sorted(tools, key=lambda tool: (tool.name, tool.description, tool.parameters))
    return tuple(
        replace(tool, parameters=written(tool.parameters) or tool.parameters) for tool in ordered
    )


def nothing_known(_: Sequence[str]) -> frozenset[int]:
    """A `Changing` that knows of no line."""
    return frozenset()


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
    conversation: Conversation, policy: Policy, changing: Changing = nothing_known
) -> tuple[Conversation, int]:
    """The conversation with stable tools and, where the policy knows that the target takes a later
    system turn, the volatile lines of its instructions in such a turn at the end.

    Only the leading system turns before a provider's breakpoint are changed. Returns the number of
    lines moved as well.
    """
    turns, moved = conversation.turns, 0
    if policy.later_system_turn:
        turns, moved = _with_volatile_last(turns, changing)
    tools = stable_tools(conversation.tools, sort_schema_keys=policy.sort_schema_keys)
    return Conversation(turns, tools), moved


def _with_volatile_last(sent: tuple[Turn, ...], changing: Changing) -> tuple[tuple[Turn, ...], int]:
    leading = tuple(takewhile(_may_lose_lines, sent))
    known = changing([line for turn in leading for line in turn.content.split("\n")])
    turns = list(sent)
    moved: list[str] = []
    first_line = 0
    for index, turn in enumerate(leading):
        length = turn.content.count("\n") + 1
        own = frozenset(place - first_line for place in known if 0 <= place - first_line < length)
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
