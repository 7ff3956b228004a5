"""The semantic tier: index and learnt state of each scope, fed by the stream of lessons alone: replicas agree, no restart forgets."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from random import Random

import numpy as np
from penstock.cache.adapters import Entries, Lesson
from penstock.cache.classes import Floats
from penstock.cache.config import CacheSection
from penstock.cache.index import VectorIndex
from penstock.cache.semantic import NEIGHBOURS, Neighbour, SemanticScope, Verdict
from redis.exceptions import RedisError

log = logging.getLogger(__name__)
SCOPES_IN_MEMORY = 1_000
FOLLOW_WAIT_MS = 200
PAUSE_S = 0.5
RIVALS = 3


@dataclass
class Held:
    """One scope in memory."""

    learnt: SemanticScope
    index: VectorIndex
    classes: dict[str, int] = field(default_factory=dict)
    """Dense numbers of canonical answers."""
    names: list[str] = field(default_factory=list)
    """The canonical answers by number."""
    newest: dict[int, str] = field(default_factory=dict)
    """Entry that a class is served by."""
    texts: dict[int, str] = field(default_factory=dict)
    answers: dict[int, int] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)
    following: int = 0
    organisation: str = ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """What the tier found: the verdict, the vector it was made with, and the entry that would be served."""

    verdict: Verdict
    vector: Floats
    key: str = ""
    rivals: tuple[tuple[str, str], ...] = ()
    """The nearest classes and the entries that they are served by, the voted one first: what a free answer may be the same as."""


class SemanticTier:
    """All scopes of one replica. Embedding, search and learning happen on one worker thread; owner: whoever starts it closes it."""

    def __init__(
        self, entries: Entries, section: CacheSection, embed: Callable[[str], Floats], width: int, rng: Random
    ) -> None:
        self._entries = entries
        self.section = section
        self._embed = embed
        self._width = width
        self._rng = rng
        self._scopes: OrderedDict[str, Held] = OrderedDict()
        self._worker = ThreadPoolExecutor(1, "semantic")
        self._at = "0"
        self._closing = False
        self._follower: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Learn everything again, then follow."""
        while rows := await self._entries.lessons(self._at, None):
            await self._take([lesson for _, lesson in rows])
            self._at = rows[-1][0]
        self._follower = asyncio.create_task(self._follow(), name="follow lessons")

    async def close(self) -> None:
        """Stop following."""
        self._closing = True
        if self._follower is not None:
            # No cancellation: the client may swallow it inside its blocking read, which ends by itself soon.
            await asyncio.wait([self._follower])
        self._worker.shutdown(wait=True)

    async def decide(self, scope_key: str, text: str, vector: Floats | None, bound: float | None) -> Candidate:
        """Embed where no ready vector came, search, decide."""
        return await asyncio.get_running_loop().run_in_executor(
            self._worker, self._decide, scope_key, text, vector, bound
        )

    def scope(self, scope_key: str) -> Held | None:
        """A scope's state, for figures."""
        return self._scopes.get(scope_key)

    def scopes(self) -> list[Held]:
        """Every scope in memory."""
        return list(self._scopes.values())

    def names(self) -> list[str]:
        """Keys of the scopes in memory."""
        return list(self._scopes)

    def places(self, scope_key: str) -> dict[str, int]:
        """Places of a scope's entries by entry key."""
        return self._scopes[scope_key].places

    def _decide(self, scope_key: str, text: str, vector: Floats | None, bound: float | None) -> Candidate:
        vector = self._embed(text) if vector is None else vector
        held = self._scopes.get(scope_key)
        if held is None:
            return Candidate(Verdict(False, "miss: nothing near"), vector)
        self._scopes.move_to_end(scope_key)  # idle scopes leave first
        near = [
            Neighbour(place, held.answers[place], similarity, held.texts[place])
            for place, similarity in held.index.search(vector, NEIGHBOURS)
        ]
        verdict = held.learnt.decide(vector, text, near, self._rng, bound)
        nearest = dict.fromkeys((verdict.answer, *(one.answer for one in near)))
        known = [answer for answer in nearest if answer in held.newest][:RIVALS]
        rivals = tuple((self.class_name(scope_key, answer), held.newest[answer]) for answer in known)
        return Candidate(verdict, vector, held.newest.get(verdict.answer, ""), rivals)

    async def _follow(self) -> None:
        while not self._closing:
            try:
                rows = await self._entries.lessons(self._at, FOLLOW_WAIT_MS)
                if rows and self._at != "0" and not await self._entries.has_lesson(self._at):
                    await self._anew()
                    continue
            except (RedisError, OSError, TimeoutError) as error:
                log.warning("the store does not answer (%s); lessons wait", type(error).__name__)
                await asyncio.sleep(PAUSE_S)
                continue
            if rows:
                await self._take([lesson for _, lesson in rows])
                self._at = rows[-1][0]

    async def _anew(self) -> None:
        """Lessons have left the stream before they were read: forget all, and learn again what the stream still holds."""
        log.warning("the stream of lessons has a gap: every scope is learnt anew")
        await asyncio.get_running_loop().run_in_executor(self._worker, self._scopes.clear)
        self._at = "0"

    async def _take(self, lessons: list[Lesson]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._worker, self._learn_all, lessons)

    def _learn_all(self, lessons: list[Lesson]) -> None:
        for lesson in lessons:
            held = self._held(lesson.scope_key)
            held.organisation = lesson.tenant.partition("\x1f")[0]
            if lesson.kind == "learn" and lesson.vector is not None:
                self._learn(held, lesson, lesson.vector)
            elif lesson.kind in ("remove", "wrong"):
                self._forget(held, lesson)

    def _held(self, scope_key: str) -> Held:
        held = self._scopes.get(scope_key)
        if held is None:
            bound = self.section.max_error_rate
            held = self._scopes[scope_key] = Held(SemanticScope(self._width, bound), VectorIndex(self._width))
            if len(self._scopes) > SCOPES_IN_MEMORY:
                self._scopes.popitem(last=False)
        self._scopes.move_to_end(scope_key)
        return held

    def _learn(self, held: Held, lesson: Lesson, vector: Floats) -> None:
        answer = held.classes.setdefault(lesson.answer_class, len(held.classes))
        if answer == len(held.names):
            held.names.append(lesson.answer_class)
        seen = lesson.verdict or {}
        verdict = Verdict(False, "")
        if (
            seen.get("answer") in held.classes
        ):  # what was voted may have left the stream: such a lesson teaches its answer alone
            verdict = Verdict(
                False, "", held.classes[seen["answer"]], seen.get("probability", 0.0), 0.0, bool(seen.get("audit")),
                tuple(seen.get("features", ())), seen.get("propensity", 1.0), seen.get("gate", ""),
            )  # fmt: skip
        held.learnt.learn(vector, lesson.text, answer, verdict)
        place, held.following = held.following, held.following + 1
        held.index.add(place, np.array(vector))
        held.texts[place], held.answers[place], held.places[lesson.key] = lesson.text, answer, place
        held.newest[answer] = lesson.key
        if len(held.texts) > self.section.scope_entries:
            self._remove(held, min(held.texts))

    def _forget(self, held: Held, lesson: Lesson) -> None:
        place = held.places.pop(lesson.key, None)
        answer = next((one for one, key in held.newest.items() if key == lesson.key), None)
        if lesson.kind == "wrong" and lesson.verdict and lesson.verdict.get("answer", "") in held.classes:
            wrong = held.classes[lesson.verdict["answer"]]
            held.learnt.reported_wrong(wrong, float(lesson.verdict.get("probability", 1.0)))
        if answer is not None:
            del held.newest[answer]
        if place is not None:
            self._remove(held, place)

    @staticmethod
    def _remove(held: Held, place: int) -> None:
        held.index.remove(place)
        held.texts.pop(place, None)
        held.answers.pop(place, None)

    def class_name(self, scope_key: str, answer: int) -> str:
        """The canonical answer of a class number."""
        held = self._scopes.get(scope_key)
        return held.names[answer] if held is not None and 0 <= answer < len(held.names) else ""
