"""What calls of a kind usually cost beyond their input: quantiles of the latest ones, by organisation and model. Plain."""

from __future__ import annotations

import math
from collections import OrderedDict, deque

KEPT = 512
FEWEST = 20
"""With fewer observations than this, the most that a call may cost is what is held for it."""
KINDS = 10_000
REFRESH = 16
"""A quantile is computed again after so many observations."""


class Outputs:
    """Learns quantiles of output costs. Memory is bounded: the kind that was used longest ago is forgotten first."""

    def __init__(self, quantile: float) -> None:
        self._quantile = quantile
        self._seen: OrderedDict[tuple[str, str], tuple[deque[int], ...]] = OrderedDict()
        self._known: dict[tuple[str, str], list[int]] = {}
        self._news: dict[tuple[str, str], int] = {}

    def learn(self, kind: tuple[str, str], beyond: list[int]) -> None:
        """Note what one call cost beyond its input: requests, tokens, micro-dollars."""
        seen = self._seen.setdefault(kind, tuple(deque(maxlen=KEPT) for _ in range(3)))
        self._seen.move_to_end(kind)
        for values, value in zip(seen, beyond, strict=True):
            values.append(max(value, 0))
        news = self._news.get(kind, 0) + 1
        self._news[kind] = news
        if len(seen[0]) >= FEWEST and (news % REFRESH == 0 or kind not in self._known):
            self._known[kind] = [_quantile(values, self._quantile) for values in seen]
        if len(self._seen) > KINDS:
            oldest, _ = self._seen.popitem(last=False)
            self._known.pop(oldest, None)
            self._news.pop(oldest, None)

    def usual(self, kind: tuple[str, str], most: list[int], least: list[int]) -> list[int]:
        """What to hold for an expected rule: the input and the quantile of what comes out, never above the most."""
        known = self._known.get(kind)
        if known is None:
            return list(most)
        return [min(top, low + out) for top, low, out in zip(most, least, known, strict=True)]


def _quantile(values: deque[int], share: float) -> int:
    """The smallest value that at least this share of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(math.ceil(share * len(ordered)), len(ordered)) - 1]
