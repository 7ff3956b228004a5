"""The values that the optimiser takes and returns: conversation, policy, decisions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from penstock.prompts.templates import Template

Role = Literal["system", "user", "assistant", "tool"]
TokenCounter = Callable[[str], int]
"""Counts the tokens of a text."""
BYTES_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Turn:
    """One message.

    Attributes:
        role: a Role; other roles are treated like text that must not change.
        content: its text.
        tool_call_id: in a tool's result, the call that it answers.
        breakpoint: a provider's cache breakpoint stands behind it.
        pinned: the caller's own text; lossy transforms leave it alone.
        fixed: nothing of it may change, such as a turn of several pieces.
        rest: whatever else of the message the provider sees, in a form that is equal for equal
            rests; part of the prefix.
    """

    role: str
    content: str
    tool_call_id: str = ""
    breakpoint: bool = False
    pinned: bool = False
    fixed: bool = False
    rest: bytes = b""


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A function that the model may call; `parameters` is JSON Schema as text, `breakpoint` that a
    provider's cache breakpoint stands behind it.
    """

    name: str
    description: str = ""
    parameters: str = ""
    breakpoint: bool = False


@dataclass(frozen=True, slots=True)
class Conversation:
    """A prompt: its tools, and its turns from the oldest to the newest.

    Providers match prefixes in this order: tools, system, messages.
    """

    turns: tuple[Turn, ...]
    tools: tuple[ToolSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """What may be done to the prompts of a tenant and model. Lossy transforms are off by default.

    Attributes:
        stable_prefix: write the schemas of tools without whitespace, and order tools by name where
            they came in another order before, as far as no breakpoint of the caller's stands behind
            them.
        later_system_turn: move volatile lines of the instructions, by their form or because they
            were seen to change, into a system turn behind the conversation; only for a target that
            is known to take one there.
        sort_schema_keys: put the keys of tools' schemas in order where they came in another order
            before; only for a target that is known to see no meaning in the order of properties.
        lossless: shorten tool results without loss.
        min_gain_tokens: a transform that saves fewer tokens is not applied.
        min_repeat_bytes: shorter repeated results are left alone.
        named_values: replace objects and arrays of earlier tool results by references to them.
        min_value_bytes: shorter objects and arrays are left alone.
        keep_share: share of a tool result's tokens that lossy selection keeps, 0 to 1; 1 is off.
        templates: known long texts with the shorter ones to replace them; lossy.
    """

    stable_prefix: bool = True
    lossless: bool = True
    later_system_turn: bool = False
    sort_schema_keys: bool = False
    min_gain_tokens: int = 4
    min_repeat_bytes: int = 200
    named_values: bool = True
    min_value_bytes: int = 160
    keep_share: float = 1.0
    templates: tuple[Template, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """What was done to one block, and why; `block` is a path such as `turns[3]` or `tools`."""

    block: str
    transform: str
    applied: bool
    reason: str
    tokens_before: int
    tokens_after: int


@dataclass(frozen=True, slots=True)
class OptimisedPrompt:
    """The prompt to send, and the decisions that led to it.

    `estimated` says that the token counts are estimates.
    """

    conversation: Conversation
    decisions: tuple[Decision, ...]
    tokens_before: int
    tokens_after: int
    estimated: bool


def estimate_tokens(text: str) -> int:
    """About four UTF-8 bytes a token, rounded up: the estimate where no tokenizer is configured."""
    size = len(text.encode("utf-8", "surrogatepass"))
    return (size + BYTES_PER_TOKEN - 1) // BYTES_PER_TOKEN
