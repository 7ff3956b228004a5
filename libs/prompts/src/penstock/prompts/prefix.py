"""Prompts that a provider can read from its prefix cache: kept stable, how much of one it is, and
what broke it.

Providers cache prefixes that match byte for byte, in the order tools, system, messages. So equal
tools become equal bytes in every call, by what has no meaning: the order of the tools, whitespace
in their schemas. The order of properties and of turns is meaning and stays, unless the target is
known to take it otherwise: only then are keys sorted, and lines with a clock or an id, which make
every call a miss, moved to a turn at the end.

How much can be read is estimated from the previous prompt of the same conversation. A provider's
minimum length, time to live and eviction are not known here; the usage that it reports has what was
really read.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from penstock.prompts.conversation import Conversation, Decision, Policy, ToolSpec, Turn
from penstock.prompts.json_text import compact, sort_keys

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
BLOCK_BYTES = 512
"""About 128 tokens, the step in which OpenAI's prompt cache grows. Prompts are compared block by
block; the last block of a prompt may be shorter.
"""
DIGEST_BYTES = 8
MAX_CONVERSATIONS = 4096
"""Conversations remembered; of a prompt of 100 KB, 1.6 KB are kept, and 8 bytes for each turn."""
LINES_NAMED = 3


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


def with_stable_prefix(conversation: Conversation, policy: Policy) -> tuple[Conversation, int]:
    """The conversation with stable tools and, where the policy knows that the target takes a later
    system turn, the volatile lines of its instructions in such a turn at the end.

    Only the leading system turns before a provider's breakpoint are changed. Returns the number of
    lines moved as well.
    """
    turns, moved = conversation.turns, 0
    if policy.later_system_turn:
        turns, moved = _with_volatile_last(turns)
    tools = stable_tools(conversation.tools, sort_schema_keys=policy.sort_schema_keys)
    return Conversation(turns, tools), moved


def _with_volatile_last(sent: tuple[Turn, ...]) -> tuple[tuple[Turn, ...], int]:
    turns = list(sent)
    moved: list[str] = []
    for index, turn in enumerate(turns):
        if turn.role != "system" or turn.breakpoint or turn.fixed or turn.content.startswith(NOTE):
            break
        stable, volatile = split_volatile(turn.content)
        if volatile and stable.strip():
            turns[index] = replace(turn, content=stable)
            moved += [line.strip() for line in volatile]
    if moved:
        turns.append(Turn("system", NOTE + "\n".join(moved)))
    return tuple(turns), len(moved)


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


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """What a prompt shares with the conversation's previous prompt.

    Attributes:
        share: part of the prompt's bytes, 0 to 1, that the previous prompt began with.
        has_previous: whether a previous prompt is known.
        broken: where the prompt departs from the previous one and how, without its texts; empty
            where it only goes on.
    """

    share: float
    has_previous: bool
    broken: str = ""

    def decision(self, tokens: int) -> Decision:
        """The shared prefix as a decision; `tokens` is the size of the prompt."""
        shared = round(self.share * tokens)
        if self.has_previous:
            reason = (
                f"{shared} of {tokens} tokens stood at the head of this conversation's previous "
                "prompt"
            )
            if self.broken:
                reason += f"; {self.broken}"
        else:
            reason = "no earlier prompt of this conversation is known"
        return Decision("prompt", "prefix_share", False, reason, tokens, tokens - shared)


class _Prompt(NamedTuple):
    """A prompt as it is remembered."""

    blocks: tuple[bytes, ...]
    """Digests of its bytes, block by block."""
    segments: tuple[bytes, ...]
    """Digests of its tools and turns."""
    tools: int


class PrefixHistory:
    """The previous prompt of each conversation, as digests of its blocks, tools and turns.

    Conversations are known by a key of the caller's choice; the least recently used are forgotten.
    """

    def __init__(self, max_conversations: int = MAX_CONVERSATIONS) -> None:
        self._max_conversations = max_conversations
        self._prompts: OrderedDict[Hashable, _Prompt] = OrderedDict()

    def record(self, key: Hashable, conversation: Conversation) -> SharedPrefix:
        """Remember a prompt that is about to be sent; compare it with the previous one."""
        text = serialised(conversation)
        prompt = _Prompt(
            tuple(
                _digest(text[start : start + BLOCK_BYTES])
                for start in range(0, len(text), BLOCK_BYTES)
            ),
            tuple(_digest(segment) for segment in _segments(conversation)),
            len(conversation.tools),
        )
        previous = self._prompts.pop(key, None)
        self._prompts[key] = prompt
        if len(self._prompts) > self._max_conversations:
            self._prompts.popitem(last=False)
        if previous is None or not prompt.blocks:
            return SharedPrefix(0.0, previous is not None)
        shared_bytes = _shared(previous.blocks, prompt.blocks) * BLOCK_BYTES
        broken = _broken(previous, prompt, conversation)
        return SharedPrefix(min(1.0, shared_bytes / len(text)), True, broken)


def _digest(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=DIGEST_BYTES).digest()


def _shared(previous: Sequence[bytes], now: Sequence[bytes]) -> int:
    """Number of leading digests that are equal."""
    for position, (before, after) in enumerate(zip(previous, now, strict=False)):
        if before != after:
            return position
    return min(len(previous), len(now))


def _broken(previous: _Prompt, now: _Prompt, conversation: Conversation) -> str:
    """Where a prompt departs from the previous one, and how; empty where one begins the other."""
    before, after = previous.segments, now.segments
    place = _shared(before, after)
    if place == min(len(before), len(after)):
        return ""
    if place < max(previous.tools, now.tools):
        return f"it broke at tools[{place}]: {_tools_changed(previous, now)}"
    index = place - now.tools
    turn = conversation.turns[index]
    return f"it broke at turns[{index}] ({turn.role}): {_turn_changed(before, after, place, turn)}"


def _tools_changed(previous: _Prompt, now: _Prompt) -> str:
    before, after = previous.segments[: previous.tools], now.segments[: now.tools]
    if sorted(before) == sorted(after):
        return "the tools are in another order"
    if set(before) < set(after):
        return "a tool was added"
    if set(after) < set(before):
        return "a tool was left out"
    return "a tool was changed"


def _turn_changed(before: Sequence[bytes], after: Sequence[bytes], place: int, turn: Turn) -> str:
    if before[place] in after[place:]:
        return "turns were inserted"
    if after[place] in before[place:]:
        return "turns before it were left out"
    lines = [
        number
        for number, line in enumerate(turn.content.split("\n"), 1)
        if _VOLATILE_LINE.match(line)
    ]
    if not lines:
        return "it was changed"
    named = ", ".join(map(str, lines[:LINES_NAMED]))
    return f"it was changed, and has a time or an identifier in line {named}"


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
