"""What the audits of a semantic cache find while some of its answers are wrong, simulated.

The cache audits as it ships (`penstock.cache.semantic`): a share of its hits, ten times as many
for a while after an audit that failed. An answer that was found wrong is asked for anew until it
proves right, and the first of these calls count as audits. Which answers are wrong is drawn here,
not learnt.
"""

from __future__ import annotations

import random

from penstock.cache.semantic.decision import RECHECKS
from penstock.cache.semantic.threshold import (
    AUDIT_SHARE,
    TIGHTENED_AUDIT_SHARE,
    TIGHTENED_INSPECTIONS,
)

ANSWERS = 50
"""Different answers, each given as often as any other."""
WRONG_BY_CHANCE = 0.02
"""Share of audits that fail though the answers are as good as ever."""
WRONG_AGAIN_BY_CHANCE = 0.2
"""The same of rechecks: what failed once is a hard case."""


class Audits:
    """The audits of one cache, hit by hit."""

    def __init__(self) -> None:
        self._tightened_left = 0
        self._suspects: dict[int, int] = {}
        """How often each was found wrong since the audit that failed."""
        self._learnt: set[int] = set()
        """Answers that were wrong and are right again, though the fault goes on."""

    def of_hit(self, wrong_share: float, rng: random.Random) -> bool | None:
        """Whether the model gave the answer that the cache had; None where it was not asked.

        `wrong_share` is the share of answers that have become wrong.
        """
        if not wrong_share:
            self._learnt.clear()
        answer = rng.randrange(ANSWERS)
        has_changed = answer < wrong_share * ANSWERS and answer not in self._learnt
        if answer in self._suspects:
            return self._recheck(answer, has_changed, rng)
        share = TIGHTENED_AUDIT_SHARE if self._tightened_left else AUDIT_SHARE
        self._tightened_left = max(0, self._tightened_left - 1)
        if rng.random() >= share:
            return None
        is_right = not has_changed and rng.random() >= WRONG_BY_CHANCE
        if not is_right:
            self._tightened_left = TIGHTENED_INSPECTIONS
            self._suspects[answer] = 0
        return is_right

    def _recheck(self, answer: int, has_changed: bool, rng: random.Random) -> bool:
        """One of the first calls of an answer that was found wrong; after the last it is learnt."""
        is_right = not has_changed and rng.random() >= WRONG_AGAIN_BY_CHANCE
        self._suspects[answer] += 1
        if is_right or self._suspects[answer] == RECHECKS:
            del self._suspects[answer]
            self._learnt.add(answer)
        return is_right
