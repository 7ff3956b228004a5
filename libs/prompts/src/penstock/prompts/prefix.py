"""Prompts that a provider can read from its prefix cache: kept stable, and how much of one it is.

Providers cache prefixes that match byte for byte, in the order tools, system, messages. So equal
tools and instructions become equal bytes in every call. A clock in the first line of the system
prompt makes every call a miss, so such lines move to the end.

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

from penstock.prompts.conversation import Conversation, Decision, ToolSpec, Turn
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
BLOCK_BYTES = 512
"""About 128 tokens, the step in which OpenAI's prompt cache grows. Prompts are compared block by
block; the last block of a prompt may be shorter.
"""
DIGEST_BYTES = 8
MAX_CONVERSATIONS = 4096
"""Conversations remembered; of a prompt of 100 KB, 1.6 KB are kept."""


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


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """What a prompt shares with the conversation's previous prompt.

    Attributes:
        share: part of the prompt's bytes, 0 to 1, that the previous prompt began with.
        has_previous: whether a previous prompt is known.
    """

    share: float
    has_previous: bool

    def decision(self, tokens: int) -> Decision:
        """The shared prefix as a decision; `tokens` is the size of the prompt."""
        shared = round(self.share * tokens)
        if self.has_previous:
            reason = (
                f"{shared} of {tokens} tokens stood at the head of this conversation's previous "
                "prompt"
            )
        else:
            reason = "no earlier prompt of this conversation is known"
        return Decision("prompt", "prefix_share", False, reason, tokens, tokens - shared)


class PrefixHistory:
    """The previous prompt of each conversation, as digests of its blocks.

    Conversations are known by a key of the caller's choice; the least recently used are forgotten.
    """

    def __init__(self, max_conversations: int = MAX_CONVERSATIONS) -> None:
        self._max_conversations = max_conversations
        self._blocks: OrderedDict[Hashable, tuple[bytes, ...]] = OrderedDict()

    def record(self, key: Hashable, conversation: Conversation) -> SharedPrefix:
        """Remember a prompt that is about to be sent; compare it with the previous one."""
        text = serialised(conversation)
        blocks = tuple(
            hashlib.blake2b(text[start : start + BLOCK_BYTES], digest_size=DIGEST_BYTES).digest()
            for start in range(0, len(text), BLOCK_BYTES)
        )
        previous = self._blocks.pop(key, None)
        self._blocks[key] = blocks
        if len(self._blocks) > self._max_conversations:
            self._blocks.popitem(last=False)
        if previous is None or not blocks:
            return SharedPrefix(0.0, previous is not None)
        shared_bytes = _shared_blocks(previous, blocks) * BLOCK_BYTES
        return SharedPrefix(min(1.0, shared_bytes / len(text)), True)


def _shared_blocks(previous: Sequence[bytes], blocks: Sequence[bytes]) -> int:
    """Number of leading blocks that are equal."""
    for position, (before, now) in enumerate(zip(previous, blocks, strict=False)):
        if before != now:
            return position
    return min(len(previous), len(blocks))


def serialised(conversation: Conversation) -> bytes:
    """The prompt as bytes, in the order in which providers match prefixes.

    Different prompts give different bytes.
    """
    fields = [
        part
        for tool in conversation.tools
        for part in ("tool", tool.name, tool.description, tool.parameters)
    ]
    fields += [
        part for turn in conversation.turns for part in (turn.role, turn.tool_call_id, turn.content)
    ]
    return b"\0".join(field.encode("utf-8", "surrogatepass") for field in fields)
