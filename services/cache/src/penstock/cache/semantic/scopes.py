"""The semantic scopes in memory, and the ids of the events of those that have left it.

Small scopes that nobody uses leave memory. The ids of their events stay, and such a scope is
rebuilt from the learning log when it is asked for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from penstock.cache.semantic.learning_log import LoggedEvent
from penstock.cache.semantic.scope_state import ScopeState
from penstock.cache.settings import CacheSection
from penstock.service.clock import Clock
from penstock.service.current import Current

MAX_LOADED_SCOPES = 1_000
UNLOAD_SAMPLE = 16
"""The smallest of this many least recently used scopes is unloaded first."""
MAX_IDLE_ENTRIES = 1_000
MAX_IDLE_S = 3_600.0
"""A scope with fewer entries is unloaded when it was not used for so long."""
MAX_UNLOADED_EVENTS = 1_000_000
"""Ids of events that are kept of unloaded scopes; beyond, the scope unloaded first is forgotten."""


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
