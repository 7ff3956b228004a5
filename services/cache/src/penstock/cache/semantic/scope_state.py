"""One semantic scope in memory: its index, what it has learnt, and which entry each class of
answers is served by. Plain.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
from penstock.cache.semantic.classes import Floats
from penstock.cache.semantic.decision import NEIGHBOURS, Neighbour, SemanticDecision, SemanticPolicy
from penstock.cache.semantic.index import VectorIndex
from penstock.cache.semantic.learning_log import LearningEvent


class ScopeState:
    """Built from lessons alone, so that it may leave memory and be built again."""

    def __init__(self, width: int, bound: float, most_entries: int, first: LearningEvent) -> None:
        self.policy = SemanticPolicy(width, bound)
        self.index = VectorIndex(width)
        self.tenant, self.namespace, self.model, self.context = (
            first.tenant,
            first.namespace,
            first.model,
            first.context,
        )
        self.ids: deque[str] = deque(maxlen=most_entries)
        """The lessons that it was built from."""
        self.used_s = 0.0
        """When it was last asked or taught."""
        self.places: dict[str, int] = {}
        """Places of entries by entry key."""
        self.newest: dict[int, str] = {}
        """Entry that a class is served by."""
        self.answers: dict[int, int] = {}
        """Class of each place."""
        self._most_entries = most_entries
        self._classes: dict[str, int] = {}
        self._names: list[str] = []
        self._texts: dict[int, str] = {}
        self._next = 0

    def near(self, vector: Floats) -> list[Neighbour]:
        """The nearest entries, nearest first."""
        return [
            Neighbour(place, self.answers[place], similarity, self._texts[place])
            for place, similarity in self.index.search(vector, NEIGHBOURS)
        ]

    def name(self, answer: int) -> str:
        """The canonical answer of a class number; empty where there is none."""
        return self._names[answer] if 0 <= answer < len(self._names) else ""

    def rivals(self, answers: Sequence[int], most: int) -> tuple[tuple[str, str], ...]:
        """The first of these classes that an entry stands for, with it."""
        known = [answer for answer in dict.fromkeys(answers) if answer in self.newest]
        return tuple((self.name(answer), self.newest[answer]) for answer in known[:most])

    def take(self, at: str, event: LearningEvent) -> None:
        """Learn, or forget, what a lesson says."""
        self.ids.append(at)
        if event.kind == "learn" and event.vector is not None:
            self._learn(event, event.vector)
        elif event.kind in ("remove", "wrong"):
            self._forget(event)

    def _learn(self, event: LearningEvent, vector: Floats) -> None:
        answer = self._classes.setdefault(event.canonical_answer, len(self._classes))
        if answer == len(self._names):
            self._names.append(event.canonical_answer)
        self.policy.learn(vector, event.text, answer, self._verdict(event))
        place, self._next = self._next, self._next + 1
        self.index.add(place, np.array(vector))
        self._texts[place], self.answers[place], self.places[event.key] = (
            event.text,
            answer,
            place,
        )
        self.newest[answer] = event.key
        if len(self._texts) > self._most_entries:
            self._remove(min(self._texts))

    def _verdict(self, event: LearningEvent) -> SemanticDecision:
        """What was decided of the prompt.

        The class that was voted may have left the stream: such a lesson teaches its answer alone.
        """
        seen = event.verdict or {}
        if seen.get("answer") not in self._classes:
            return SemanticDecision(False, "")
        return SemanticDecision(
            False,
            "",
            self._classes[seen["answer"]],
            seen.get("probability", 0.0),
            0.0,
            bool(seen.get("audit")),
            tuple(seen.get("features", ())),
            seen.get("gate", ""),
        )

    def _forget(self, event: LearningEvent) -> None:
        place = self.places.pop(event.key, None)
        seen = event.verdict or {}
        if event.kind == "wrong" and seen.get("answer", "") in self._classes:
            self.policy.reported_wrong(
                self._classes[seen["answer"]], float(seen.get("probability", 1.0))
            )
        answer = next((one for one, key in self.newest.items() if key == event.key), None)
        if answer is not None:
            del self.newest[answer]
        if place is not None:
            self._remove(place)

    def _remove(self, place: int) -> None:
        self.index.remove(place)
        self._texts.pop(place, None)
        self.answers.pop(place, None)
