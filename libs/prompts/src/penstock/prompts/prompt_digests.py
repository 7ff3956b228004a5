"""What is remembered of a prompt to compare the next one with it: digests, lengths, places.

No text is kept. Beside the digest of a tool or turn as it is, there are digests of what is left
without differences of one sort (white space, line ends, the form of Unicode, the order of keys), so
that the sort of a difference can be told. Lines are kept apart only where a prompt begins: a value
that changes there costs the whole prefix.

A digest is Python's own hash: SipHash of 64 bits under a key of the process, which is fast and says
nothing outside it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from penstock.prompts.conversation import Conversation, ToolSpec, Turn
from penstock.prompts.json_text import sort_keys
from penstock.prompts.volatile import ValueKind, masked, values

MAX_LINES, MAX_VALUES = 256, 8
"""Lines of a turn in the head, and values of a line, that are kept."""
MAX_TOOLS = 4096
TURN_BYTES, LINE_BYTES, VALUE_BYTES = 320, 120, 96
"""About what digests take in memory."""
_DIGIT = re.compile(r"\d")

Digest = int


class LineDigests(NamedTuple):
    """A line: as it is, without its values, and the values."""

    exact: Digest
    masked: Digest
    values: tuple[tuple[ValueKind, Digest], ...]


class ToolDigests(NamedTuple):
    """A tool."""

    name: Digest
    exact: Digest
    without_description: Digest
    sorted_keys: Digest
    """With the keys of its schema in order, and without white space in it."""
    length: int
    """Characters of all of it."""
    breakpoint: bool


class TurnDigests(NamedTuple):
    """A turn."""

    role: str
    answers: Digest
    """The tool call that it answers."""
    exact: Digest
    text: Digest
    rest: Digest
    without_images: Digest
    """The rest without the bytes of its images."""
    line_ends: Digest
    unicode: Digest
    space: Digest
    length: int
    """Characters of its text."""
    breakpoint: bool
    lines: tuple[LineDigests, ...] | None
    """The first lines of a turn in the head; None elsewhere."""
    size_bytes: int
    """About what its digests take in memory."""


class PromptDigests(NamedTuple):
    """A prompt."""

    tools: tuple[ToolDigests, ...]
    turns: tuple[TurnDigests, ...]
    settings: Mapping[str, Digest]
    """By name, what a provider's cache goes by beside the text: `model`, parameters."""
    breakpoints: tuple[int, ...]
    """The breakpoints as numbers of tools and turns, counted together."""
    began: Digest
    """The text of the first user turn, by which a conversation is known."""

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory, but for its tools, which are shared."""
        return sum([turn.size_bytes for turn in self.turns])


class KnownTools:
    """Digests of tools that many conversations share; the oldest leave first."""

    def __init__(self, max_tools: int = MAX_TOOLS) -> None:
        self._max_tools = max_tools
        self._tools: dict[Digest, ToolDigests] = {}

    def digests_of(self, tool: ToolSpec) -> ToolDigests:
        """The digests of a tool."""
        exact = hash((tool.name, tool.description, tool.parameters))
        found = self._tools.get(exact)
        if found is None:
            found = self._tools[exact] = _new_tool(tool, exact)
            if len(self._tools) > self._max_tools:
                del self._tools[next(iter(self._tools))]
        same = found.breakpoint is tool.breakpoint
        return found if same else found._replace(breakpoint=tool.breakpoint)

    def __len__(self) -> int:
        return len(self._tools)


def digests_of(
    conversation: Conversation,
    settings: Mapping[str, str],
    images: Sequence[bytes] = (),
    previous: PromptDigests | None = None,
    tools: KnownTools | None = None,
) -> PromptDigests:
    """The digests of a prompt.

    Args:
        conversation: the prompt.
        settings: model and parameters, by name.
        images: the rest of each turn without the bytes of its images, where it has images; an empty
            value or a missing one: the turn has none.
        previous: that of an earlier prompt; what is in it already is not computed again.
        tools: tools that are known already.
    """
    known = KnownTools() if tools is None else tools
    marks = [tool.breakpoint for tool in conversation.tools]
    marks += [turn.breakpoint for turn in conversation.turns]
    return PromptDigests(
        tuple([known.digests_of(tool) for tool in conversation.tools]),
        _turns(conversation.turns, images, previous.turns if previous else ()),
        {name: hash(value) for name, value in settings.items()},
        tuple([place for place, marked in enumerate(marks) if marked]),
        began(conversation),
    )


def began(conversation: Conversation) -> Digest:
    """The digest of a conversation's beginning."""
    return hash(next((turn.content for turn in conversation.turns if turn.role == "user"), ""))


def _turns(
    turns: Sequence[Turn], images: Sequence[bytes], known: tuple[TurnDigests, ...]
) -> tuple[TurnDigests, ...]:
    """The digests of turns. Those that stand where they stood are the known objects."""
    exact = [hash((turn.role, turn.tool_call_id, turn.content, turn.rest)) for turn in turns]
    shared = 0
    for earlier, digest, turn in zip(known, exact, turns, strict=False):
        if earlier.exact != digest or earlier.breakpoint is not turn.breakpoint:
            break
        shared += 1
    if shared == len(turns):
        return known[:shared]
    head, others = _head_length(turns), _Others(known[shared:])
    made = [
        others.turn(turns[place], exact[place], _at(images, place), place < head)
        for place in range(shared, len(turns))
    ]
    return (*known[:shared], *made)


def _at(images: Sequence[bytes], place: int) -> bytes:
    return images[place] if place < len(images) else b""


class _Others:
    """The turns of an earlier prompt behind those that are shared, and the lines of its head."""

    def __init__(self, known: Sequence[TurnDigests]) -> None:
        self._turns = {turn.exact: turn for turn in known}
        self._lines = {line.exact: line for turn in known for line in turn.lines or ()}

    def turn(self, turn: Turn, exact: Digest, without_images: bytes, in_head: bool) -> TurnDigests:
        """The digests of a turn."""
        found = self._turns.get(exact)
        if found is None or (in_head and found.lines is None):
            return _new_turn(turn, exact, without_images, self._lines if in_head else None)
        same = found.breakpoint is turn.breakpoint
        return found if same else found._replace(breakpoint=turn.breakpoint)


def _head_length(turns: Sequence[Turn]) -> int:
    """Leading system turns and the first turn after them."""
    leading = next((index for index, turn in enumerate(turns) if turn.role != "system"), len(turns))
    return leading + 1


def _new_tool(tool: ToolSpec, exact: Digest) -> ToolDigests:
    name, description, parameters = tool.name, tool.description, tool.parameters
    ordered = sort_keys(parameters) or parameters
    return ToolDigests(
        hash(name),
        exact,
        hash((name, parameters)),
        hash((name, description, ordered)),
        len(name) + len(description) + len(parameters),
        tool.breakpoint,
    )


def _new_turn(
    turn: Turn,
    exact: Digest,
    without_images: bytes,
    known_lines: Mapping[Digest, LineDigests] | None,
) -> TurnDigests:
    """The digests of a turn; `known_lines` is None for one that is not in the head."""
    text, rest = turn.content, hash(turn.rest)
    as_it_is = hash(text)
    same_ends = text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text
    composed = text if text.isascii() else unicodedata.normalize("NFC", text)
    lines = None if known_lines is None else _lines(text, known_lines)
    return TurnDigests(
        turn.role,
        hash(turn.tool_call_id),
        exact,
        as_it_is,
        rest,
        hash(without_images) if without_images else rest,
        as_it_is if same_ends == text else hash(same_ends),
        as_it_is if composed == text else hash(composed),
        hash(" ".join(text.split())),
        len(text),
        turn.breakpoint,
        lines,
        TURN_BYTES + sum([LINE_BYTES + VALUE_BYTES * len(line.values) for line in lines or ()]),
    )


def _lines(text: str, known: Mapping[Digest, LineDigests]) -> tuple[LineDigests, ...]:
    lines = text.split("\n", MAX_LINES)[:MAX_LINES]
    return tuple([known.get(hash(line)) or line_digests(line) for line in lines])


def line_digests(line: str) -> LineDigests:
    """The digests of a line."""
    exact = hash(line)
    found = tuple(values(line))[:MAX_VALUES] if _DIGIT.search(line) else ()
    return LineDigests(
        exact,
        hash(masked(line, found)) if found else exact,
        tuple([(value.kind, hash(value.text)) for value in found]),
    )
