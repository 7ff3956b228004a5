"""Which fault happens at which await, by a seed.

Every place where something may go wrong is a point with a name, and asks each time that it is
passed. What happens the n-th time at a point depends on the seed, the name and n alone, so leaving
one fault out changes none of the others' draws: a failing run can be shrunk by leaving faults out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Literal

FaultKind = Literal["delay", "lost_request", "lost_answer", "hang", "fail", "cancel"]


@dataclass(frozen=True)
class Drawn:
    """What happens at one await: how long the way takes, and the fault that happens, if any."""

    key: str
    latency_s: float
    kind: FaultKind | None = None
    seconds: float = 0.0


class FaultPlan:
    """Draws faults.

    Args:
        seed: two plans with the same seed draw the same.
        rates: by kind, the share of awaits at which it happens.
        only: keys of the faults that may happen; None: all.

    Attributes:
        is_active: faults happen; latency varies in any case.
        happened: keys of the faults that have happened, in order, with their kind.
    """

    def __init__(
        self, seed: int, rates: Mapping[FaultKind, float], only: frozenset[str] | None = None
    ) -> None:
        self.is_active = False
        self.happened: dict[str, FaultKind] = {}
        self.seed = seed
        self._rates = rates
        self._only = only
        self._passed: Counter[str] = Counter()

    def rng(self, name: str) -> Random:
        """Chance of one part of the run, apart from all other parts."""
        return Random(f"{self.seed}/{name}")

    def may_happen(self, key: str, kind: FaultKind) -> bool:
        """Whether a fault that is planned otherwise happens; notes it if so."""
        if self._only is not None and key not in self._only:
            return False
        self.happened[key] = kind
        return True

    def draw(self, point: str, kinds: tuple[FaultKind, ...]) -> Drawn:
        """What happens now at a point at which these kinds of fault can happen."""
        key = f"{point}#{self._passed[point]}"
        self._passed[point] += 1
        rng = self.rng(key)
        latency_s = rng.uniform(1e-4, 2e-3)
        chance, kind = rng.random(), None
        for each in kinds:
            chance -= self._rates.get(each, 0.0)
            if chance < 0:
                kind = each
                break
        seconds = rng.choice((0.005, 0.05, 0.3, 1.5)) * rng.uniform(0.5, 1.5)
        if kind is None or not self.is_active or not self.may_happen(key, kind):
            return Drawn(key, latency_s)
        return Drawn(key, latency_s, kind, seconds)
