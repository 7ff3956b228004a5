"""The semantic cache of one replica: its scopes in memory, which follow the learning log, and the
model that embeds prompts.

Embedding, search and learning run on one worker thread, and only that thread touches the scopes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import TypeVar

from penstock.cache.semantic.classes import Floats
from penstock.cache.semantic.decision import SemanticDecision
from penstock.cache.semantic.declared_answers import DeclaredAnswers
from penstock.cache.semantic.embedder import Embedder
from penstock.cache.semantic.learning_log import LearningLog, LoggedEvent
from penstock.cache.semantic.scope import Prompt
from penstock.cache.semantic.scopes import MAX_LOADED_SCOPES, Scopes, ScopeState
from penstock.cache.settings import CacheSection
from penstock.cache.storage.entry_store import STORE_ERRORS
from penstock.service.bounded_map import BoundedMap
from penstock.service.clock import Clock
from penstock.service.current import Current
from penstock.service.interruption import unless
from penstock.service.store_connections import READ_WAIT_MS
from penstock.service.work_stream import stop

log = logging.getLogger(__name__)
RETRY_S = 0.5
"""Pause after the store has not answered."""
MAX_RIVALS = 3
MAX_ANSWER_LISTS = 128
"""Scopes whose allowed answers have their vectors kept, the most recently used."""
FIRST_EVENT = "0"
R = TypeVar("R")


BEING_READ = SemanticDecision(serve=False, rule="miss: the scope is being read again")


@dataclass(frozen=True, slots=True)
class Candidate:
    """What the semantic cache found for a prompt.

    `vector` is the prompt's. `key` is the entry that would be served, empty for none, and `answer`
    its canonical answer. `rivals` are canonical answers and entry keys of the nearest classes, the
    one voted for first: a free answer may be the same as one of theirs. `embed_ms` is 0 where the
    vector was given.
    """

    decision: SemanticDecision
    vector: Floats
    key: str = ""
    answer: str = ""
    rivals: tuple[tuple[str, str], ...] = ()
    embed_ms: float = 0.0

    def without_entry(self) -> Candidate:
        """The same where the entry to be served has left the store."""
        return replace(self, key="", rivals=())


class SemanticCache:
    """All semantic scopes of one replica. Owner: whoever starts it closes it."""

    def __init__(
        self,
        learning_log: LearningLog,
        section: Current[CacheSection],
        embedder: Embedder,
        rng: Random,
        clock: Clock,
        *,
        max_loaded_scopes: int = MAX_LOADED_SCOPES,
    ) -> None:
        self.learning_log = learning_log
        self.embedder = embedder
        self._rng = rng
        self._scopes = Scopes(section, embedder.width, clock, max_loaded_scopes)
        self._declared: BoundedMap[str, DeclaredAnswers] = BoundedMap(MAX_ANSWER_LISTS)
        """Allowed answers with their vectors, by scope key."""
        self._worker = ThreadPoolExecutor(1, "semantic")
        self._position = FIRST_EVENT
        """The latest event that was read."""
        self._requested: set[str] = set()
        """Unloaded scopes that have been asked for; loaded between two reads of the log."""
        self._is_asked = asyncio.Event()
        self.is_caught_up = False
        """Whether all that the log held at the start is learnt. Until then nothing is reused: a
        correction may not have been read yet.
        """
        self._follower: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Learn all that the log holds, then follow it, in the background."""
        self._follower = asyncio.create_task(self._follow(), name="follow the learning log")

    async def close(self) -> None:
        """Stop following the log."""
        if self._follower is not None:
            await stop([self._follower])
        self._worker.shutdown(wait=True)

    async def find(self, prompt: Prompt, bound: float | None) -> Candidate:
        """Embed a prompt and decide whether an answer may be reused.

        `bound` is the caller's own error bound, None for the configured one.

        Raises:
            BadModel: the embedder cannot be loaded.
        """
        found = await self._on_worker(partial(self._find, prompt, bound))
        if self._requested:
            self._is_asked.set()
        return found

    async def read(self, view: Callable[[list[ScopeState]], R]) -> R:
        """What `view` returns for the loaded scopes, called on the thread that changes them."""
        return await self._on_worker(lambda: view(self.loaded_scopes))

    @property
    def loaded_scopes(self) -> list[ScopeState]:
        """The scopes in memory, the least recently used first.

        Another thread changes them: only read values of them that are replaced as a whole.
        """
        return list(self._scopes.loaded.values())

    @property
    def loaded_scope_keys(self) -> list[str]:
        """The keys of the scopes in memory, in the same order."""
        return list(self._scopes.loaded)

    @property
    def unloaded_event_count(self) -> int:
        """Number of events of scopes that are not in memory."""
        return self._scopes.unloaded_event_count

    def scope_keys_with(self, entry_key: str) -> list[str]:
        """The keys of the scopes in memory that an entry belongs to."""
        return [key for key, state in list(self._scopes.loaded.items()) if entry_key in state]

    async def _on_worker(self, work: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)

    def _find(self, prompt: Prompt, bound: float | None) -> Candidate:
        started = time.perf_counter()
        vector = self.embedder.embed(prompt.text)
        embed_ms = (time.perf_counter() - started) * 1e3
        if not self.is_caught_up:
            return Candidate(BEING_READ, vector, embed_ms=embed_ms)
        state = self._scopes.use(prompt.scope_key)
        if state is None:
            return Candidate(self._without_scope(prompt.scope_key), vector, embed_ms=embed_ms)
        neighbours = state.neighbours(vector)
        margin_of = self._answer_margins(prompt, vector, state)
        decision = state.policy.decide(vector, prompt.text, neighbours, self._rng, bound, margin_of)
        voted = [decision.answer_class, *(one.answer_class for one in neighbours)]
        return Candidate(
            decision,
            vector,
            state.newest_entry(decision.answer_class),
            state.canonical_answer(decision.answer_class),
            state.classes_with_entries(voted, MAX_RIVALS),
            embed_ms,
        )

    def _answer_margins(
        self, prompt: Prompt, vector: Floats, state: ScopeState
    ) -> Callable[[int], float] | None:
        """The margin of each answer class by the words of the allowed answers; None where the
        request lists none.
        """
        if not prompt.answers:
            return None
        declared = self._declared.get(prompt.scope_key, DeclaredAnswers(prompt.answers))
        if not declared.is_embedded:
            declared = declared.with_more_vectors(self.embedder.embed)
            self._declared.put(prompt.scope_key, declared)
        return lambda answer_class: declared.margin(vector, state.canonical_answer(answer_class))

    def _without_scope(self, scope_key: str) -> SemanticDecision:
        if not self._scopes.is_unloaded(scope_key):
            return SemanticDecision(serve=False, rule="miss: nothing near")
        self._requested.add(scope_key)
        return BEING_READ

    async def _follow(self) -> None:
        while True:
            try:
                await self._follow_once()
            except STORE_ERRORS as error:
                log.warning(
                    "learning log: the store does not answer (%s); reading again in %g s",
                    type(error).__name__,
                    RETRY_S,
                )
                await asyncio.sleep(RETRY_S)

    async def _follow_once(self) -> None:
        events = await self._next_events()
        if not events and not self.is_caught_up:
            self.is_caught_up = True
            return
        if events and await self._has_gap():
            log.warning("learning log: events left before they were read; relearning all scopes")
            await self._on_worker(self._scopes.clear)
            self._position = FIRST_EVENT
            return
        await self._apply(events)
        await self._reload_requested()

    async def _next_events(self) -> list[LoggedEvent]:
        """The events after the latest one read: those that are there, and once caught up those that
        come; none where a scope is asked for meanwhile.
        """
        if not self.is_caught_up:
            return await self.learning_log.read_after(self._position, None)
        reading = self.learning_log.read_after(self._position, READ_WAIT_MS)
        return await unless(self._is_asked, reading, [])

    async def _has_gap(self) -> bool:
        """Whether events after the latest one read may have left the log."""
        if self._position == FIRST_EVENT:
            return False
        return not await self.learning_log.contains(self._position)

    async def _apply(self, events: Sequence[LoggedEvent]) -> None:
        """Learn events; without any, scopes that nobody has used for long leave memory."""
        await self._on_worker(partial(self._scopes.apply, events))
        if events:
            self._position = events[-1].event_id

    async def _reload_requested(self) -> None:
        """Rebuild the unloaded scopes that were asked for.

        None of their events is missed meanwhile, since only this task reads events.
        """
        self._is_asked.clear()
        while self._requested:
            scope_key = self._requested.pop()
            events = await self.learning_log.read(self._scopes.unloaded_events(scope_key))
            await self._on_worker(partial(self._scopes.rebuild, scope_key, events))
