"""Who stands between the agents and the provider, and with what switched on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from penstock.bench.agent_replay.traffic.recordings import Json
from penstock.bench.agent_replay.traffic.requests import Writing


@dataclass(frozen=True)
class Arm:
    """One side of the comparison.

    Attributes:
        name: short, for figures.
        title: for people.
        through: whether calls go through Penstock, else directly to the provider.
        writing: how the client writes its requests.
        dictionary: whether the client keeps answers itself.
        headers: of every request.
        shaping: the rule for its prompts; None for the one that ships.
    """

    name: str
    title: str
    through: bool = True
    writing: Writing = Writing.AS_RECORDED
    dictionary: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    shaping: Json | None = None


DIRECT = Arm("d0", "direct, pooled, the provider's prefix cache on", through=False)
CAREFUL = Arm(
    "d1",
    "direct, with a dictionary, tools in one order and the clock moved by hand",
    through=False,
    writing=Writing.CAREFUL,
    dictionary=True,
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
ARMS = (DIRECT, CAREFUL, OFF, DEFAULTS, OPT_INS)
