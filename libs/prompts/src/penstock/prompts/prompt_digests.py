"""What is remembered of a prompt to compare the next one with it: digests, lengths, places.

No text is kept. Beside the digest of a tool or turn as it is, there are digests of what is left
without differences of one sort (white space, line ends, the form of Unicode, the order of keys), so
that the sort of a difference can be told. Lines are kept apart only where a prompt begins: a value
that changes there costs the whole prefix.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from penstock.prompts.conversation import Conversation, ToolSpec, Turn
from penstock.prompts.json_text import sort_keys
from penstock.prompts.volatile import ValueKind, masked, values

DIGEST_BYTES = 8
MAX_LINES, MAX_VALUES = 256, 8
"""Lines of a prompt's head, and values of a line, that are kept; a prompt of 100 KB takes at most
40 KB.
"""
_SPACE = re.compile(r"\s+")

Digest = bytes


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
    breakpoint: bool


class TurnDigests(NamedTuple):
    """A turn."""

    role: str
    answers: str
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
    lines: tuple[LineDigests, ...]
    """Of a turn in the head; empty elsewhere, and where there are more than are kept."""


class PromptDigests(NamedTuple):
    """A prompt."""

    tools: tuple[ToolDigests, ...]
    turns: tuple[TurnDigests, ...]
    settings: Mapping[str, Digest]
    """By name, what a provider's cache goes by beside the text: `model`, parameters."""


def digest(text: bytes) -> Digest:
    """Eight bytes of BLAKE2b."""
    return hashlib.blake2b(text, digest_size=DIGEST_BYTES).digest()


def digests_of(
    conversation: Conversation,
    settings: Mapping[str, str],
    images: Sequence[bytes] = (),
    previous: PromptDigests | None = None,
) -> PromptDigests:
    """The digests of a prompt.

    Args:
        conversation: the prompt.
        settings: model and parameters, by name.
        images: the rest of each turn without the bytes of its images, where it has images; an empty
            value or a missing one: the turn has none.
        previous: that of an earlier prompt; what is in it already is not computed again.
    """
    head = _head_length(conversation.turns)
    known_tools = {tool.exact: tool for tool in previous.tools} if previous else {}
    known_turns = {turn.exact: turn for turn in previous.turns} if previous else {}
    return PromptDigests(
        tuple(_tool(tool, known_tools) for tool in conversation.tools),
        tuple(
            _turn(turn, images[index] if index < len(images) else b"", index < head, known_turns)
            for index, turn in enumerate(conversation.turns)
        ),
        {name: digest(_bytes(value)) for name, value in settings.items()},
    )


def _head_length(turns: Sequence[Turn]) -> int:
    """Leading system turns and the first turn after them."""
    leading = next((index for index, turn in enumerate(turns) if turn.role != "system"), len(turns))
    return leading + 1


def _tool(tool: ToolSpec, known: Mapping[Digest, ToolDigests]) -> ToolDigests:
    exact = digest(_joined(tool.name, tool.description, tool.parameters))
    if (found := known.get(exact)) is not None:
        return found._replace(breakpoint=tool.breakpoint)
    ordered = sort_keys(tool.parameters) or tool.parameters
    return ToolDigests(
        digest(_bytes(tool.name)),
        exact,
        digest(_joined(tool.name, tool.parameters)),
        digest(_joined(tool.name, tool.description, ordered)),
        tool.breakpoint,
    )


def _turn(
    turn: Turn, without_images: bytes, in_head: bool, known: Mapping[Digest, TurnDigests]
) -> TurnDigests:
    text = turn.content
    exact = digest(_joined(turn.role, turn.tool_call_id, text) + b"\0" + turn.rest)
    found = known.get(exact)
    if found is not None and bool(found.lines) >= in_head:
        return found._replace(breakpoint=turn.breakpoint)
    same_ends = text.replace("\r\n", "\n").replace("\r", "\n")
    as_it_is, rest = digest(_bytes(text)), digest(turn.rest)

    def of(changed: str) -> Digest:
        return as_it_is if changed == text else digest(_bytes(changed))

    return TurnDigests(
        turn.role,
        turn.tool_call_id,
        exact,
        as_it_is,
        rest,
        digest(without_images) if without_images else rest,
        of(same_ends),
        of(unicodedata.normalize("NFC", text)),
        of(_SPACE.sub(" ", same_ends).strip()),
        len(text),
        turn.breakpoint,
        _lines(text) if in_head else (),
    )


def _lines(text: str) -> tuple[LineDigests, ...]:
    lines = text.split("\n")
    return tuple(map(line_digests, lines)) if len(lines) <= MAX_LINES else ()


def line_digests(line: str) -> LineDigests:
    """The digests of a line."""
    found = tuple(values(line))[:MAX_VALUES]
    exact = digest(_bytes(line))
    return LineDigests(
        exact,
        digest(_bytes(masked(line, found))) if found else exact,
        tuple((value.kind, digest(_bytes(value.text))) for value in found),
    )


def _joined(*fields: str) -> bytes:
    return b"\0".join(map(_bytes, fields))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
