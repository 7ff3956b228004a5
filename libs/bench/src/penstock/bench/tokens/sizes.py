"""Sizes and costs of prompts before and after the optimiser."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Change(NamedTuple):
    """A size or cost before and after the optimiser."""

    before: float
    after: float

    @property
    def cut(self) -> float:
        """Share that was saved."""
        return 1 - self.after / self.before

    def plus(self, other: Change) -> Change:
        """Both together."""
        return Change(self.before + other.before, self.after + other.after)


def total(changes: Iterable[Change]) -> Change:
    """All of them together; there is at least one."""
    before, after = (sum(sizes) for sizes in zip(*changes, strict=True))
    return Change(before, after)
