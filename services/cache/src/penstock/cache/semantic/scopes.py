"""The semantic scopes: what each has in memory (its vectors, what it has learnt, the entry of each
answer class), and the ids of the events of those that have left it.

A scope changes by events of the learning log only. Small scopes that nobody uses leave memory; the
ids of their events stay, and such a scope is rebuilt from the log when it is asked for.
"""

from __future__ import annotations

from collections import OrderedDict, deque
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
from penstock.cache.settings import CacheSection
from penstock.service.clock import Clock
from penstock.service.current import Current

NO_DECISION = SemanticDecision(serve=False, rule="")
MAX_LOADED_SCOPES = 1_000
UNLOAD_SAMPLE = 16
"""The smallest of this many least recently used scopes is unloaded first."""
MAX_IDLE_ENTRIES = 1_000
MAX_IDLE_S = 3_600.0
"""A scope with fewer entries is unloaded when it was not used for so long."""
MAX_UNLOADED_EVENTS = 1_000_000
"""Ids of events that are kept of unloaded scopes; beyond, the scope unloaded first is forgotten."""


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
            is_recheck=recorded.is_recheck,
            answer_margin=recorded.answer_margin,
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


class Scopes:
    """All scopes of one replica, loaded and unloaded. Used on one thread."""

    def __init__(
        self, section: Current[CacheSection], width: int, clock: Clock, max_loaded: int
    ) -> None:
        self.loaded: OrderedDict[str, ScopeState] = OrderedDict()
        """By scope key, the least recently used first."""
        self.unloaded_event_count = 0
        self._section = section
        self._width = width
        self._clock = clock
        self._max_loaded = max_loaded
        self._unloaded: OrderedDict[str, list[str]] = OrderedDict()

    def is_unloaded(self, scope_key: str) -> bool:
        """Whether a scope has left memory and can be rebuilt."""
        return scope_key in self._unloaded

    def unloaded_events(self, scope_key: str) -> Sequence[str]:
        """The ids of an unloaded scope's events, oldest first."""
        return self._unloaded.get(scope_key, ())

    def use(self, scope_key: str) -> ScopeState | None:
        """A scope in memory, now the most recently used; None where it is not there."""
        state = self.loaded.get(scope_key)
        if state is not None:
            state.last_used_s = self._clock.monotonic()
            self.loaded.move_to_end(scope_key)
        return state

    def apply(self, events: Sequence[LoggedEvent]) -> None:
        """Learn events; those of unloaded scopes are kept by their ids."""
        for logged in events:
            scope_key = logged.event.scope_key
            if scope_key in self._unloaded:
                self._unloaded[scope_key].append(logged.event_id)
                self.unloaded_event_count += 1
            else:
                self._scope_of(logged).apply(logged)
        self._unload_idle()

    def rebuild(self, scope_key: str, events: Sequence[LoggedEvent]) -> None:
        """Load an unloaded scope from its events."""
        self.unloaded_event_count -= len(self._unloaded.pop(scope_key, ()))
        for logged in events:
            self._scope_of(logged).apply(logged)
        self._unload_idle()

    def clear(self) -> None:
        """Forget all scopes, loaded and unloaded."""
        self.loaded.clear()
        self._unloaded.clear()
        self.unloaded_event_count = 0

    def _scope_of(self, logged: LoggedEvent) -> ScopeState:
        """The loaded scope of an event, made for the scope's first event."""
        event = logged.event
        state = self.use(event.scope_key)
        if state is not None:
            return state
        section = self._section.value
        state = ScopeState(self._width, section.max_error_rate, section.scope_entries, event)
        state.last_used_s = self._clock.monotonic()
        self.loaded[event.scope_key] = state
        if len(self.loaded) > self._max_loaded:
            self._unload(self._smallest_of_oldest())
        return state

    def _smallest_of_oldest(self) -> str:
        """The smallest of the least recently used scopes, the newest one never among them."""
        count = min(UNLOAD_SAMPLE, max(1, len(self.loaded) - 1))
        oldest = [key for key, _ in zip(self.loaded, range(count), strict=False)]
        return min(oldest, key=lambda key: len(self.loaded[key]))

    def _unload_idle(self) -> None:
        """Unload small scopes that were not used for `MAX_IDLE_S`."""
        idle_since_s = self._clock.monotonic() - MAX_IDLE_S
        idle = []
        for key, state in self.loaded.items():
            if state.last_used_s > idle_since_s:
                break  # scopes stand in the order of their last use
            if len(state) < MAX_IDLE_ENTRIES:
                idle.append(key)
        for key in idle:
            self._unload(key)

    def _unload(self, scope_key: str) -> None:
        event_ids = list(self.loaded.pop(scope_key).event_ids)
        self._unloaded[scope_key] = event_ids
        self.unloaded_event_count += len(event_ids)
        while self.unloaded_event_count > MAX_UNLOADED_EVENTS:
            _, forgotten = self._unloaded.popitem(last=False)
            self.unloaded_event_count -= len(forgotten)
