"""The stream of what scopes have learnt, in Redis: every replica follows it, so that all agree and
no restart forgets.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import redis.asyncio
from penstock.cache.semantic.classes import Floats

LESSONS = "penstock:cache:lessons"
LESSON_BYTES = 2_500.0
"""What a lesson takes, until some have been written here."""
FEWEST_KEPT = 1_000
READ_AT_ONCE = 1_000
SMOOTHING = 0.01

Row = tuple[str, "Lesson"]
"""A lesson and its id in the stream."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """What one called request taught its scope.

    `key` is the entry that holds the answer; `kind` is `learn`, `remove` or `wrong`.
    """

    kind: str
    tenant: str
    scope_key: str
    key: str
    text: str = ""
    answer_class: str = ""
    vector: Floats | None = None
    verdict: dict[str, Any] | None = None
    namespace: str = ""
    model: str = ""
    context: bytes = b""
    """Digest of surroundings that are not part of the task."""


class Lessons:
    """The stream, held to about so many bytes. The client belongs to whoever made it."""

    def __init__(self, client: redis.asyncio.Redis, most_bytes: int) -> None:
        self._client = client
        self.most_bytes = most_bytes
        self._mean_bytes = LESSON_BYTES

    async def teach(self, lesson: Lesson) -> None:
        """Append to what every replica learns."""
        fields: dict[Any, Any] = {
            "k": lesson.kind,
            "t": lesson.tenant,
            "s": lesson.scope_key,
            "e": lesson.key,
            "x": lesson.text,
            "a": lesson.answer_class,
            "v": lesson.vector.tobytes() if lesson.vector is not None else b"",
            "d": json.dumps(lesson.verdict),
            "n": lesson.namespace,
            "m": lesson.model,
            "c": lesson.context,
        }
        size = sum(len(value) for value in fields.values())
        self._mean_bytes += SMOOTHING * (size - self._mean_bytes)
        kept = max(FEWEST_KEPT, round(self.most_bytes / self._mean_bytes))
        await self._client.xadd(LESSONS, fields, maxlen=kept, approximate=True)

    async def after(self, at: str, wait_ms: int | None) -> list[Row]:
        """The lessons after an id, oldest first; waits where there is none and `wait_ms` is
        given.
        """
        found: Any = await self._client.xread({LESSONS: at}, count=READ_AT_ONCE, block=wait_ms)
        rows: Sequence[Any] = found[0][1] if found else ()
        return [(at.decode(), _lesson(fields)) for at, fields in rows]

    async def holds(self, at: str) -> bool:
        """True while the lesson of this id is in the stream: what follows it then follows without a
        gap.
        """
        return bool(await self._client.xrange(LESSONS, at, at, count=1))

    async def of(self, ids: Sequence[str]) -> list[Row]:
        """The lessons of these ids that the stream still holds, in their order."""
        rows: list[Row] = []
        for first in range(0, len(ids), READ_AT_ONCE):
            pipe = self._client.pipeline(transaction=False)
            for at in ids[first : first + READ_AT_ONCE]:
                pipe.xrange(LESSONS, at, at, count=1)
            found: list[Any] = await pipe.execute()
            rows += [(row[0][0].decode(), _lesson(row[0][1])) for row in found if row]
        return rows


def _lesson(fields: dict[bytes, bytes]) -> Lesson:
    def text(name: bytes) -> str:
        return fields.get(name, b"").decode()

    vector = np.frombuffer(fields[b"v"], np.float32) if fields[b"v"] else None
    return Lesson(
        text(b"k"),
        text(b"t"),
        text(b"s"),
        text(b"e"),
        text(b"x"),
        text(b"a"),
        vector,
        json.loads(fields[b"d"]),
        text(b"n"),
        text(b"m"),
        fields.get(b"c", b""),
    )
