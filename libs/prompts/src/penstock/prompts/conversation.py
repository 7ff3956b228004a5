"""The values that the optimiser takes and gives back: turns, tools, policy, decisions.

No transform lives here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from penstock.prompts.templates import Template

Role = Literal["system", "user", "assistant", "tool"]
TokenCounter = Callable[[str], int]
"""Counts the tokens of a text, by the model's own tokenizer where one is configured."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message. `pinned` text is the caller's to keep: it is never selected away."""

    role: str
    content: str
    tool_call_id: str = ""
    breakpoint: bool = False
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A function that the model may call; `parameters` is JSON Schema as text."""

    name: str
    description: str = ""
    parameters: str = ""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A prompt: tools, then turns, oldest first, in the order in which providers match prefixes
    (tools, system, messages).
    """

    turns: tuple[Turn, ...]
    tools: tuple[ToolSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """What may be done for a tenant and model. Lossy selection is off unless asked for.

    `least_gain_tokens`: a transform that saves less than this is not worth a changed block.
    `least_repeat_bytes`: shorter repeats are left alone. `named_values`: an object or array of
    `least_value_bytes` that an earlier tool result holds is said by its name there. `keep_share`:
    share of a passage block's tokens that lossy selection keeps, 0 to 1; 1 switches it off.
    `templates`: known parts of tool descriptions and tool results that are said in the operator's
    shorter words; lossy.
    """

    stable_prefix: bool = True
    lossless: bool = True
    least_gain_tokens: int = 4
    least_repeat_bytes: int = 200
    named_values: bool = True
    least_value_bytes: int = 160
    keep_share: float = 1.0
    templates: tuple[Template, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """What was done to one block and why; `block` is a path such as `turns[3]` or `tools`."""

    block: str
    transform: str
    applied: bool
    reason: str
    tokens_before: int
    tokens_after: int


@dataclass(frozen=True, slots=True)
class Optimised:
    """The prompt to send, with the account of how it came to be.

    `estimated`: the counts are estimates.
    """

    conversation: Conversation
    decisions: tuple[Decision, ...]
    tokens_before: int
    tokens_after: int
    estimated: bool


def estimate_tokens(text: str) -> int:
    """About four UTF-8 bytes a token: the stated estimate where no tokenizer is configured."""
    return (len(text.encode("utf-8", "surrogatepass")) + 3) // 4
