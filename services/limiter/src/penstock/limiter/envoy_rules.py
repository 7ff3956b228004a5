"""Limits for descriptors of Envoy's protocol: what the file says, and which one a descriptor gets.

A descriptor is a list of entries, each a key and a value. The file limits descriptors in two forms,
which may stand side by side:

- a flat rule names the entries of one kind of descriptor. The first rule that fits counts.
- a domain has a tree of descriptors, as in the files of envoyproxy/ratelimit, so that such a file
  works here as it is. The tree is descended entry by entry and never climbed: at each level the
  exact value comes first, then wildcards in their order, then the key alone. A limit counts only
  where the last entry ends.

A value that ends in `*` is a wildcard: it stands for every value with that beginning. Each value is
counted by itself, unless the rule says `share_threshold`; then all of them share one counter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

from penstock.limiter.calendar_windows import UNIT_SECONDS, Unit
from penstock.service.purity import pure
from penstock.service.settings import Section
from pydantic import Discriminator, Field, Tag, field_validator, model_validator

YEAR_S = 365 * 86_400
StoreLoss = Literal["open", "closed"]


class Entry(NamedTuple):
    """One entry of a descriptor."""

    key: str
    value: str


class EnvoyLimit(NamedTuple):
    """What a rule says of a descriptor."""

    requests: int
    period_s: int
    entries: tuple[Entry, ...]
    """Whom it counts: the descriptor's entries, with the wildcard itself where values share."""
    name: str = ""
    is_shadow: bool = False
    store_loss: StoreLoss = "open"
    is_unlimited: bool = False


class EnvoyRule(Section):
    """One limit for descriptors of Envoy's protocol.

    Each entry of `descriptor` is `key=value`, `key=beginning*`, or `key` for any value.
    """

    domain: str = Field(min_length=1)
    descriptor: tuple[str, ...] = Field(min_length=1)
    requests_per_unit: int = Field(ge=1)
    unit: Unit
    name: str = ""
    store_loss: StoreLoss = "open"
    shadow: bool = False
    share_threshold: bool = False
    """Whether all values that an entry stands for share one counter."""

    def limit_for(self, domain: str, entries: Sequence[Entry]) -> EnvoyLimit | None:
        """The limit of a descriptor; None where the rule is for others."""
        if domain != self.domain or len(entries) != len(self.descriptor):
            return None
        counted: list[Entry] = []
        for wanted, entry in zip(self.descriptor, entries, strict=True):
            fits, pattern = _fits(wanted, entry)
            if not fits:
                return None
            counted.append(Entry(entry.key, pattern if self.share_threshold else entry.value))
        return EnvoyLimit(
            self.requests_per_unit,
            UNIT_SECONDS[self.unit],
            tuple(counted),
            self.name,
            self.shadow,
            self.store_loss,
        )


class RateLimit(Section):
    """`rate_limit` of a descriptor in a tree."""

    requests_per_unit: int = Field(0, ge=0)
    unit: Literal["second", "minute", "hour", "day", "week", "month", "year", ""] = ""
    unlimited: bool = False
    name: str = ""

    @field_validator("unit", mode="before")
    @classmethod
    def _in_lower_case(cls, unit: object) -> object:
        return unit.lower() if isinstance(unit, str) else unit

    @model_validator(mode="after")
    def _has_unit(self) -> RateLimit:
        if self.unlimited == bool(self.unit):
            raise ValueError("needs either a unit, or unlimited: true without one")
        return self


class DescriptorNode(Section):
    """A descriptor in a tree: an entry, its limit, and what may follow it."""

    key: str = Field(min_length=1)
    value: str = ""
    """Empty: every value, each counted by itself."""
    rate_limit: RateLimit | None = None
    descriptors: tuple[DescriptorNode, ...] = ()
    shadow_mode: bool = False
    share_threshold: bool = False
    """Whether all values of a wildcard share one counter."""

    @field_validator("descriptors")
    @classmethod
    def _once(cls, nodes: tuple[DescriptorNode, ...]) -> tuple[DescriptorNode, ...]:
        return check_once(nodes)

    @model_validator(mode="after")
    def _shares_a_wildcard(self) -> DescriptorNode:
        if self.share_threshold and not self.is_wildcard:
            raise ValueError("share_threshold needs a value that ends in *")
        return self

    @property
    def is_wildcard(self) -> bool:
        """Whether it stands for every value with a beginning."""
        return self.value.endswith("*")

    def rank_for(self, entry: Entry) -> int | None:
        """How well it fits an entry: 0 best; None where it does not."""
        if self.key != entry.key:
            return None
        if not self.value:
            return 2
        if self.value == entry.value:
            return 0
        return 1 if self.is_wildcard and entry.value.startswith(self.value[:-1]) else None


class EnvoyDomain(Section):
    """A domain with a tree of descriptors."""

    domain: str = Field(min_length=1)
    descriptors: tuple[DescriptorNode, ...] = Field(min_length=1)
    store_loss: StoreLoss = "open"

    @field_validator("descriptors")
    @classmethod
    def _once(cls, nodes: tuple[DescriptorNode, ...]) -> tuple[DescriptorNode, ...]:
        return check_once(nodes)

    def limit_for(self, domain: str, entries: Sequence[Entry]) -> EnvoyLimit | None:
        """The limit of a descriptor; None where the tree has none for it."""
        if domain != self.domain:
            return None
        path = descend(self.descriptors, entries)
        limit = path[-1].rate_limit if path else None
        if limit is None:
            return None
        counted = [
            Entry(entry.key, node.value if node.share_threshold else entry.value)
            for node, entry in zip(path, entries, strict=True)
        ]
        return EnvoyLimit(
            limit.requests_per_unit,
            YEAR_S if limit.unit == "year" else UNIT_SECONDS.get(limit.unit, 1),
            tuple(counted),
            limit.name,
            path[-1].shadow_mode,
            self.store_loss,
            limit.unlimited,
        )


def form_of(value: object) -> str:
    """Which form a part of the file has: `tree` or `flat`."""
    is_tree = isinstance(value, EnvoyDomain) or (isinstance(value, dict) and "descriptors" in value)
    return "tree" if is_tree else "flat"


EnvoyLimits = Annotated[
    Annotated[EnvoyDomain, Tag("tree")] | Annotated[EnvoyRule, Tag("flat")], Discriminator(form_of)
]
"""Either form. Told apart before they are read, so that an error is that of one form."""


@pure
def descend(nodes: Sequence[DescriptorNode], entries: Sequence[Entry]) -> list[DescriptorNode]:
    """The nodes of a tree that a descriptor's entries lead to; empty where they lead nowhere."""
    path: list[DescriptorNode] = []
    for entry in entries:
        ranked = [(rank, node) for node in nodes if (rank := node.rank_for(entry)) is not None]
        if not ranked:
            return []
        node = min(ranked, key=lambda pair: pair[0])[1]
        path.append(node)
        nodes = node.descriptors
    return path


@pure
def counter_name(entries: Sequence[Entry]) -> str:
    """A name that no other list of entries has: each key and value stands behind its length."""
    return "|".join(
        f"{len(entry.key)}:{entry.key}={len(entry.value)}:{entry.value}" for entry in entries
    )


@pure
def shown_name(entries: Sequence[Entry]) -> str:
    """What people read of a limit without a name; several may have the same."""
    return "|".join(f"{entry.key}={entry.value}" for entry in entries)


@pure
def _fits(wanted: str, entry: Entry) -> tuple[bool, str]:
    """Whether an entry of a flat rule fits, and what its values share where they do."""
    if wanted == f"{entry.key}={entry.value}":
        return True, entry.value
    if wanted == entry.key:
        return True, "*"
    if wanted.endswith("*") and f"{entry.key}={entry.value}".startswith(wanted[:-1]):
        key, _, pattern = wanted.partition("=")
        return key == entry.key and bool(pattern), pattern
    return False, ""


def check_once(nodes: tuple[DescriptorNode, ...]) -> tuple[DescriptorNode, ...]:
    """The descriptors of one level, none of which stands twice; raises ValueError."""
    places = [(node.key, node.value) for node in nodes]
    for place in places:
        if places.count(place) > 1:
            raise ValueError(f"key {place[0]!r} with value {place[1]!r} stands twice")
    return nodes
