"""What a caller may do, whatever credential it has shown."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from penstock.api.router.v1 import router_pb2
from penstock.rpc.call import NORMAL, Principal
from penstock.rpc.errors import Fault, denied
from penstock.service.purity import pure

ALL_REST = "*"
"""At the end of a model's name in a scope: any rest."""
AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Scope:
    """Models and kinds of task that may be asked for; empty: all."""

    models: tuple[str, ...] = ()
    kinds: frozenset[str] = frozenset()

    def covers_model(self, name: str) -> bool:
        """Whether the model may be used, and be seen."""
        return not self.models or any(_matches(pattern, name) for pattern in self.models)


EVERYTHING = Scope()


@dataclass(frozen=True, slots=True)
class Grant:
    """Who a caller is and what it may do."""

    principal: Principal
    ceiling: int = NORMAL
    """Highest priority of its calls."""
    scope: Scope = EVERYTHING
    expires_unix_s: float = math.inf
    shows_addresses: bool = False
    """Whether the addresses of instances are shown to it."""

    def priority(self, asked: int) -> int:
        """The priority that a call gets: what it asks for, by default normal, up to the ceiling."""
        return min(asked or NORMAL, self.ceiling)


class Permitted(NamedTuple):
    """The models that a call may be tried on."""

    models: tuple[str, ...]


@pure
def permitted_models(
    scope: Scope, kind: str, options: router_pb2.CallOptions, chain: Sequence[str]
) -> Permitted | Fault:
    """The models of a chain that a scope covers, or why the call is refused. What the scope does
    not cover is refused in the same words whether it exists or not.
    """
    if scope.kinds and kind not in scope.kinds:
        return denied(f"the API key may not ask for the kind of task {kind}; use a key that may")
    named = ("options.model", options.model) if options.model != AUTO else ("", "")
    for field, name in (named, *(("options.fallback_models", n) for n in options.fallback_models)):
        if name and not scope.covers_model(name):
            return denied(f"{field}: the API key may not use {name!r}; use one of its models")
    models = tuple(name for name in chain if scope.covers_model(name))
    if not models:
        return denied("options.model: names none, and the API key may not use the default")
    return Permitted(models)


@pure
def visible(scope: Scope, names: Collection[str]) -> list[str]:
    """Those of the models that the scope covers, sorted."""
    return sorted(name for name in names if scope.covers_model(name))


def _matches(pattern: str, name: str) -> bool:
    if pattern.endswith(ALL_REST):
        return name.startswith(pattern.removesuffix(ALL_REST))
    return name == pattern
