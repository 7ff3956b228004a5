"""The blocks of an answer, and what happens to them while the answer grows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TextBlock:
    """What the model says."""

    text: str = ""


@dataclass(frozen=True)
class RefusalBlock:
    """What the model says in place of an answer."""

    text: str = ""


@dataclass(frozen=True)
class ReasoningBlock:
    """What the model thought; fields as in the contract's Reasoning."""

    text: str = ""
    state: bytes = b""
    format: str = ""


@dataclass(frozen=True)
class ToolCallBlock:
    """A call that the model asks for; fields as in the contract's ToolCall, of which `extra_json`
    travels apart (see `extras`).
    """

    id: str = ""
    name: str = ""
    arguments_json: str = ""


Block = TextBlock | RefusalBlock | ReasoningBlock | ToolCallBlock


@dataclass(frozen=True)
class Begun:
    """A block begins: without its text, which follows in pieces, and with all else that is known.

    A reasoning block without readable text begins with its whole state.
    """

    index: int
    block: Block


@dataclass(frozen=True)
class Grown:
    """More text, or more arguments of a tool call."""

    index: int
    text: str


@dataclass(frozen=True)
class Ended:
    """A block is whole."""

    index: int
    block: Block


Event = Begun | Grown | Ended
