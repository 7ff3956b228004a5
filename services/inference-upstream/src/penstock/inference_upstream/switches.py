"""What differs between servers that speak the same protocol: which fields they take, and how.

A switch has the value of the model's section, else of the upstream's, else of the table of known
providers, else the default below, which suits the most servers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from penstock.service.settings import Section
from pydantic import Field

LengthParameter = Literal["max_completion_tokens", "max_tokens"]
SystemTurns = Literal["anywhere", "first", "none"]
ReasoningParameter = Literal["reasoning_effort", "reasoning", "adaptive", "budget", "none"]
Breakpoints = Literal["none", "cache_control", "prompt_cache_breakpoint"]


class Switches(Section):
    """Switches of an upstream or of one model."""

    length_parameter: LengthParameter = "max_completion_tokens"
    """The field for the largest answer."""
    stream_usage: bool = True
    """Whether `stream_options` may ask for the tokens of a stream."""
    strict_schemas: bool = True
    """Whether `strict` may be sent with schemas and tools."""
    json_object: bool = True
    """Whether answers may be asked to be any JSON object."""
    system_turns: SystemTurns = "anywhere"
    """Where system turns may stand; others are sent as the user's."""
    system_role: Literal["system", "developer"] = "system"
    """The name of the system's role."""
    temperature: bool = True
    """Whether `temperature` and `top_p` may be sent; reasoning models often refuse them."""
    parallel_tools: bool = True
    """Whether parallel tool calls may be switched on and off."""
    allowed_tools: bool = False
    """Whether a choice among some of the tools can be said; if not, only these tools are sent."""
    reasoning: ReasoningParameter = "reasoning_effort"
    """How reasoning is asked for: `reasoning_effort`, OpenRouter's `reasoning`, or Anthropic's
    `adaptive` thinking or thinking with a `budget`.
    """
    reasoning_back: bool = True
    """Whether the model's earlier reasoning is sent back to it."""
    extras_back: bool = True
    """Whether what the provider added to turns and tool calls is sent back to it."""
    breakpoints: Breakpoints = "none"
    """How cache breakpoints are marked."""
    max_breakpoints: int = Field(4, ge=0)
    min_cache_tokens: int = Field(0, ge=0)
    """Shortest prefix that the provider caches; 0 takes the protocol's table."""
    confirms_end: bool = False
    """Whether each stream ends in the protocol's end marker. If so, one without it is cut;
    otherwise its answer is delivered and not kept.
    """
    empty_text: bool = True
    """Whether turns may be empty."""
    same_wire: bool = False
    """Whether requests of the same wire go to it as they came, and its answers back: for servers
    whose answers need no mending for clients.
    """
    omit: tuple[str, ...] = ()
    """Body fields that are never sent."""
    body: Mapping[str, Any] = Field(default_factory=dict)
    """Further body fields of every request."""
    finish_reasons: Mapping[str, Literal["stop", "length", "tool_calls", "filtered"]] = Field(
        default_factory=dict
    )
    """Meanings of finish reasons that the protocol does not know."""

    def over(self, base: Switches) -> Switches:
        """These switches where they are set, the base's elsewhere."""
        return base.model_copy(update={name: getattr(self, name) for name in self.model_fields_set})
