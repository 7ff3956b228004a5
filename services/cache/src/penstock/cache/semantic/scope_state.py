"""One semantic scope in memory: its vectors, what it has learnt, and the entry of each answer
class.

It changes by events of the learning log only, so it can leave memory and be rebuilt from them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
from penstock.cache.semantic.classes import Floats
from penstock.cache.semantic.decision import NEIGHBOURS, Neighbour, SemanticDecision, SemanticPolicy
from penstock.cache.semantic.index import VectorIndex
from penstock.cache.semantic.learning_log import (
    LEARN,
    REMOVE,
    WRONG,
    LearningEvent,
    LoggedEvent,
    RecordedDecision,
)

NO_DECISION = SemanticDecision(serve=False, rule="")


class ScopeState:
    """The state of one scope. Beyond `max_entries` the oldest entry leaves.

    Args:
        width: numbers in a vector.
        bound: the largest share of errors among hits, see `SemanticPolicy`.
        first: any event of the scope: tenant, namespace, model and context are the same in all.
    """

    def __init__(self, width: int, bound: float, max_entries: int, first: LearningEvent) -> None:
        self.tenant = first.tenant
        self.namespace = first.namespace
        self.model = first.model
        self.context_sha256 = first.context_sha256
        self.policy = SemanticPolicy(width, bound)
        self.event_ids: deque[str] = deque(maxlen=max_entries)
        """The events that the scope was built from."""
        self.last_used_s = 0.0
        """When it was last asked or taught, by the monotonic clock."""
        self._index = VectorIndex(width)
        self._max_entries = max_entries
        self._class_numbers: dict[str, int] = {}
        """By canonical answer."""
        self._canonical_answers: list[str] = []
        """By class number."""
        self._newest_entries: dict[int, str] = {}
        """By class number: the key of the entry that it is served by."""
        self._vector_ids: dict[str, int] = {}
        """By entry key."""
        self._vector_classes: dict[int, int] = {}
        self._texts: dict[int, str] = {}
        """By vector."""
        self._next_vector_id = 0

    def __len__(self) -> int:
        """Number of entries."""
        return len(self._index)

    def __contains__(self, entry_key: str) -> bool:
        return entry_key in self._vector_ids

    @property
    def answer_classes(self) -> list[int]:
        """The answer class of each entry, in the order in which they were learnt."""
        return [answer_class for _, answer_class in sorted(self._vector_classes.items())]

    def neighbours(self, vector: Floats) -> list[Neighbour]:
        """The nearest cached prompts that vote, nearest first."""
        return [
            Neighbour(vector_id, self._vector_classes[vector_id], cosine, self._texts[vector_id])
            for vector_id, cosine in self._index.search(vector, NEIGHBOURS)
        ]

    def canonical_answer(self, answer_class: int) -> str:
        """The canonical answer of a class; empty for a number that is no class."""
        if 0 <= answer_class < len(self._canonical_answers):
            return self._canonical_answers[answer_class]
        return ""

    def newest_entry(self, answer_class: int) -> str:
        """The key of the entry that a class is served by; empty where it has none."""
        return self._newest_entries.get(answer_class, "")

    def classes_with_entries(
        self, answer_classes: Sequence[int], count: int
    ) -> tuple[tuple[str, str], ...]:
        """The canonical answers and entry keys of the first `count` of these classes that have an
        entry, each once.
        """
        served = [one for one in dict.fromkeys(answer_classes) if one in self._newest_entries]
        return tuple(
            (self.canonical_answer(one), self._newest_entries[one]) for one in served[:count]
        )

    def apply(self, logged: LoggedEvent) -> None:
        """Learn an event, or forget what it says."""
        self.event_ids.append(logged.event_id)
        event = logged.event
        if event.kind == LEARN and event.vector is not None:
            self._learn(event, event.vector)
        elif event.kind == WRONG:
            self._record_complaint(event.decision)
            self._forget_entry(event.key)
        elif event.kind == REMOVE:
            self._forget_entry(event.key)

    def _learn(self, event: LearningEvent, vector: Floats) -> None:
        answer_class = self._class_numbers.setdefault(event.answer, len(self._class_numbers))
        if answer_class == len(self._canonical_answers):
            self._canonical_answers.append(event.answer)
        self.policy.learn(vector, event.text, answer_class, self._decision(event.decision))
        self._newest_entries[answer_class] = event.key
        vector_id = self._next_vector_id
        self._next_vector_id += 1
        self._index.add(vector_id, np.array(vector))
        self._texts[vector_id] = event.text
        self._vector_classes[vector_id] = answer_class
        self._vector_ids[event.key] = vector_id
        if len(self._texts) > self._max_entries:
            self._remove_vector(min(self._texts))

    def _decision(self, recorded: RecordedDecision | None) -> SemanticDecision:
        """A recorded decision with this scope's class numbers.

        Where the class that was voted for has left the log, only the true answer is learnt.
        """
        if recorded is None or recorded.answer not in self._class_numbers:
            return NO_DECISION
        return SemanticDecision(
            serve=False,
            rule="",
            answer_class=self._class_numbers[recorded.answer],
            probability=recorded.probability,
            is_audit=recorded.is_audit,
            features=recorded.features,
            contradiction=recorded.contradiction,
        )

    def _record_complaint(self, recorded: RecordedDecision | None) -> None:
        if recorded is not None and recorded.answer in self._class_numbers:
            answer_class = self._class_numbers[recorded.answer]
            self.policy.record_complaint(answer_class, recorded.probability)

    def _forget_entry(self, entry_key: str) -> None:
        for answer_class, key in self._newest_entries.items():
            if key == entry_key:
                del self._newest_entries[answer_class]
                break
        vector_id = self._vector_ids.pop(entry_key, None)
        if vector_id is not None:
            self._remove_vector(vector_id)

    def _remove_vector(self, vector_id: int) -> None:
        self._index.remove(vector_id)
        self._texts.pop(vector_id, None)
        self._vector_classes.pop(vector_id, None)
