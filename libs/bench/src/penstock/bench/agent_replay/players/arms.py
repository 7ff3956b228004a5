"""Who stands between the agents and the provider, and with what switched on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from penstock.bench.agent_replay.traffic.recordings import Json
from penstock.bench.agent_replay.traffic.requests import Writing


class Via(Enum):
    """What stands between the agents and the provider."""

    NOTHING = "nothing"
    PENSTOCK = "Penstock"
    LITELLM_EXACT = "LiteLLM with its exact cache"
    LITELLM_SEMANTIC = "LiteLLM with its semantic cache"


@dataclass(frozen=True)
class Arm:
    """One side of the comparison.

    Attributes:
        name: short, for figures.
        title: for people.
        via: what calls go through.
        writing: how the client writes its requests.
        dictionary: whether the client keeps answers itself.
        headers: of every request.
        shaping: the rule for its prompts; None for the one that ships.
    """

    name: str
    title: str
    via: Via = Via.PENSTOCK
    writing: Writing = Writing.AS_RECORDED
    dictionary: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    shaping: Json | None = None

    @property
    def through(self) -> bool:
        """Whether calls go through Penstock."""
        return self.via is Via.PENSTOCK


DIRECT = Arm("d0", "direct, pooled, the provider's prefix cache on", Via.NOTHING)
CAREFUL = Arm(
    "d1",
    "direct, with a dictionary, tools in one order and the clock moved by hand",
    Via.NOTHING,
    writing=Writing.CAREFUL,
    dictionary=True,
)
LITELLM = Arm("d2", "LiteLLM's proxy with Redis, exact cache", Via.LITELLM_EXACT)
LITELLM_SEMANTIC = Arm(
    "d2s", "LiteLLM's proxy with Redis, semantic cache at 0.8", Via.LITELLM_SEMANTIC
)
OFF = Arm(
    "p0",
    "Penstock with cache and shaping off",
    headers={"x-penstock-cache": "bypass"},
    shaping={"stable_prefix": False, "lossless": False, "named_values": False},
)
DEFAULTS = Arm("p", "Penstock as it ships")
OPT_INS = Arm(
    "pplus",
    "Penstock with lossless opt-ins",
    shaping={"later_system_turn": True, "sort_schema_keys": True},
)
ARMS = (DIRECT, CAREFUL, LITELLM, LITELLM_SEMANTIC, OFF, DEFAULTS, OPT_INS)
