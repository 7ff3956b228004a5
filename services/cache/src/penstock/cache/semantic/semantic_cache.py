"""The semantic tier: the scopes of one replica, fed by the stream of lessons alone: replicas agree,
no restart forgets.

Embedding, search and learning happen on one worker thread, which alone touches the scopes. Small
scopes that nobody asks leave memory; the ids of their lessons stay, and they are built again when
they are asked.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from penstock.cache.semantic.classes import Floats
from penstock.cache.semantic.decision import SemanticDecision
from penstock.cache.semantic.learning_log import LearningEvent, LearningLog, Row
from penstock.cache.semantic.scope_state import ScopeState
from penstock.cache.settings import CacheSection
from penstock.cache.storage.entry_store import STORE_ERRORS
from penstock.service.clock import Clock

log = logging.getLogger(__name__)
MAX_LOADED_SCOPES = 1_000
LOOKED_AT = 16
"""The smallest of so many that were not used for longest leaves first."""
SMALL, IDLE_S = 1_000, 3_600.0
"""A scope of fewer entries leaves when it has not been used for so long."""
MAX_UNLOADED_EVENTS = 1_000_000
"""Ids of lessons that are remembered of scopes that have left; the scope that left first is
forgotten first.
"""
FOLLOW_WAIT_MS = 200
PAUSE_S = 0.5
MAX_RIVALS = 3
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Embedder:
    """What embeds prompts: its name and revision as `name@revision`, the width of its vectors, and
    how.
    """

    revision: str
    width: int
    embed: Callable[[str], Floats]


@dataclass(frozen=True, slots=True)
class Candidate:
    """What the tier found: the verdict, the vector it was made with, and the entry that would be
    served.
    """

    verdict: SemanticDecision
    vector: Floats
    key: str = ""
    answer: str = ""
    """The voted class's canonical answer."""
    rivals: tuple[tuple[str, str], ...] = ()
    """The nearest classes and the entries that they are served by, the voted one first: what a free
    answer may be the same as.
    """
    embed_ms: float = 0.0


class SemanticCache:
    """All scopes of one replica. Owner: whoever starts it closes it."""

    def __init__(
        self,
        learning_log: LearningLog,
        section: CacheSection,
        embedder: Embedder,
        rng: Random,
        clock: Clock,
    ) -> None:
        self.learning_log = learning_log
        self.section = section
        self.embedder = embedder
        self._rng, self._clock = rng, clock
        self._scopes: OrderedDict[str, ScopeState] = OrderedDict()
        self._away: OrderedDict[str, list[str]] = OrderedDict()
        self._away_ids = 0
        self._wanted: set[str] = set()
        self._worker = ThreadPoolExecutor(1, "semantic")
        self._at = "0"
        self._closing = False
        self._follower: asyncio.Task[None] | None = None

    def reload(self, section: CacheSection) -> None:
        """Put a new section in force; scopes in memory keep their bound."""
        self.section, self.learning_log.most_bytes = section, section.lessons_bytes

    async def start(self) -> None:
        """Learn everything again, then follow."""
        while rows := await self.learning_log.after(self._at, None):
            await self._take(rows)
        self._follower = asyncio.create_task(self._follow(), name="follow lessons")

    async def close(self) -> None:
        """Stop following."""
        self._closing = True
        if self._follower is not None:
            # No cancellation: the client may swallow it inside its blocking read, which ends by
            # itself soon.
            await asyncio.wait([self._follower])
        self._worker.shutdown(wait=True)

    async def decide(
        self, scope_key: str, text: str, vector: Floats | None, bound: float | None
    ) -> Candidate:
        """Embed where no ready vector came, search, decide."""
        return await self._work(lambda: self._decide(scope_key, text, vector, bound))

    async def read(self, look: Callable[[list[ScopeState]], R]) -> R:
        """What `look` makes of the scopes in memory, on the thread that changes them."""
        return await self._work(lambda: look(list(self._scopes.values())))

    def scopes(self) -> list[ScopeState]:
        """Every scope in memory; only to look at what does not change in size."""
        return list(self._scopes.values())

    def names(self) -> list[str]:
        """Keys of the scopes in memory."""
        return list(self._scopes)

    def scopes_with(self, key: str) -> list[str]:
        """Keys of the scopes in memory that an entry belongs to."""
        return [name for name, state in list(self._scopes.items()) if key in state.places]

    async def _work(self, what: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._worker, what)

    def _decide(
        self, scope_key: str, text: str, vector: Floats | None, bound: float | None
    ) -> Candidate:
        embed_ms = 0.0
        if vector is None:
            began = time.perf_counter()
            vector = self.embedder.embed(text)
            embed_ms = (time.perf_counter() - began) * 1e3
        state = self._scopes.get(scope_key)
        if state is None:
            rule = "miss: nothing near"
            if scope_key in self._away:
                self._wanted.add(scope_key)
                rule = "miss: the scope is being read again"
            return Candidate(SemanticDecision(False, rule), vector, embed_ms=embed_ms)
        self._used(scope_key, state)
        near = state.near(vector)
        verdict = state.policy.decide(vector, text, near, self._rng, bound)
        rivals = state.rivals([verdict.answer, *(one.answer for one in near)], MAX_RIVALS)
        key = state.newest.get(verdict.answer, "")
        return Candidate(verdict, vector, key, state.name(verdict.answer), rivals, embed_ms)

    async def _follow(self) -> None:
        while not self._closing:
            try:
                rows = await self.learning_log.after(self._at, FOLLOW_WAIT_MS)
                if rows and self._at != "0" and not await self.learning_log.holds(self._at):
                    await self._anew()
                    continue
                await self._take(rows)
                await self._bring_back()
            except STORE_ERRORS as error:
                log.warning("the store does not answer (%s); lessons wait", type(error).__name__)
                await asyncio.sleep(PAUSE_S)

    async def _anew(self) -> None:
        """Lessons have left the stream before they were read: forget all, and learn again what the
        stream still holds.
        """
        log.warning("the stream of lessons has a gap: every scope is learnt anew")
        await self._work(self._forget_all)
        self._at = "0"

    def _forget_all(self) -> None:
        self._scopes.clear()
        self._away.clear()
        self._away_ids = 0

    async def _take(self, rows: Sequence[Row]) -> None:
        await self._work(lambda: self._learn_all(rows))
        if rows:
            self._at = rows[-1][0]

    async def _bring_back(self) -> None:
        """Build scopes again that have left memory and are asked for.

        No lesson of theirs is read meanwhile: this loop reads them all.
        """
        while self._wanted:
            scope_key = self._wanted.pop()
            rows = await self.learning_log.of(self._away.get(scope_key, ()))
            await self._work(lambda scope_key=scope_key, rows=rows: self._build(scope_key, rows))  # type: ignore[misc]

    def _build(self, scope_key: str, rows: Sequence[Row]) -> None:
        self._away_ids -= len(self._away.pop(scope_key, ()))
        for at, event in rows:
            self._held(event).take(at, event)
        self._tidy()

    def _learn_all(self, rows: Sequence[Row]) -> None:
        for at, event in rows:
            if event.scope_key in self._away:
                self._away[event.scope_key].append(at)
                self._away_ids += 1
            else:
                self._held(event).take(at, event)
        self._tidy()

    def _held(self, event: LearningEvent) -> ScopeState:
        state = self._scopes.get(event.scope_key)
        if state is None:
            section = self.section
            state = ScopeState(
                self.embedder.width, section.max_error_rate, section.scope_entries, event
            )
            self._scopes[event.scope_key] = state
            if len(self._scopes) > MAX_LOADED_SCOPES:
                self._leave(self._smallest())
        self._used(event.scope_key, state)
        return state

    def _used(self, scope_key: str, state: ScopeState) -> None:
        state.used_s = self._clock.monotonic()
        self._scopes.move_to_end(scope_key)

    def _smallest(self) -> str:
        oldest = [name for name, _ in zip(self._scopes, range(LOOKED_AT), strict=False)]
        return min(
            oldest[: max(1, len(self._scopes) - 1)], key=lambda name: len(self._scopes[name].index)
        )

    def _tidy(self) -> None:
        """Let small scopes go that nobody has used for long; the first of all is the one that was
        not used for longest.
        """
        until = self._clock.monotonic() - IDLE_S
        idle = []
        for name, state in self._scopes.items():
            if state.used_s > until:
                break
            if len(state.index) < SMALL:
                idle.append(name)
        for name in idle:
            self._leave(name)

    def _leave(self, scope_key: str) -> None:
        self._away[scope_key] = list(self._scopes.pop(scope_key).ids)
        self._away_ids += len(self._away[scope_key])
        while self._away_ids > MAX_UNLOADED_EVENTS:
            _, ids = self._away.popitem(last=False)
            self._away_ids -= len(ids)
