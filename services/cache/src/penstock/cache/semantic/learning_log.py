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

STREAM = "penstock:cache:lessons"
ASSUMED_EVENT_BYTES = 2_500.0
"""What a lesson takes, until some have been written here."""
MIN_EVENTS = 1_000
READ_BATCH = 1_000
SMOOTHING = 0.01

Row = tuple[str, "LearningEvent"]
"""A lesson and its id in the stream."""


@dataclass(frozen=True, slots=True)
class LearningEvent:
    """What one called request taught its scope.

    `key` is the entry that holds the answer; `kind` is `learn`, `remove` or `wrong`.
    """

    kind: str
    tenant: str
    scope_key: str
    key: str
    text: str = ""
    canonical_answer: str = ""
    vector: Floats | None = None
    verdict: dict[str, Any] | None = None
    namespace: str = ""
    model: str = ""
    context: bytes = b""
    """Digest of surroundings that are not part of the task."""


class LearningLog:
    """The stream, held to about so many bytes. The client belongs to whoever made it."""

    def __init__(self, client: redis.asyncio.Redis, most_bytes: int) -> None:
        self._client = client
        self.most_bytes = most_bytes
        self._mean_bytes = ASSUMED_EVENT_BYTES

    async def teach(self, event: LearningEvent) -> None:
        """Append to what every replica learns."""
        fields: dict[Any, Any] = {
            "k": event.kind,
            "t": event.tenant,
            "s": event.scope_key,
            "e": event.key,
            "x": event.text,
            "a": event.canonical_answer,
            "v": event.vector.tobytes() if event.vector is not None else b"",
            "d": json.dumps(event.verdict),
            "n": event.namespace,
            "m": event.model,
            "c": event.context,
        }
        size = sum(len(value) for value in fields.values())
        self._mean_bytes += SMOOTHING * (size - self._mean_bytes)
        kept = max(MIN_EVENTS, round(self.most_bytes / self._mean_bytes))
        await self._client.xadd(STREAM, fields, maxlen=kept, approximate=True)

    async def after(self, at: str, wait_ms: int | None) -> list[Row]:
        """The lessons after an id, oldest first; waits where there is none and `wait_ms` is
        given.
        """
        found: Any = await self._client.xread({STREAM: at}, count=READ_BATCH, block=wait_ms)
        rows: Sequence[Any] = found[0][1] if found else ()
        return [(at.decode(), _event(fields)) for at, fields in rows]

    async def holds(self, at: str) -> bool:
        """True while the lesson of this id is in the stream: what follows it then follows without a
        gap.
        """
        return bool(await self._client.xrange(STREAM, at, at, count=1))

    async def of(self, ids: Sequence[str]) -> list[Row]:
        """The lessons of these ids that the stream still holds, in their order."""
        rows: list[Row] = []
        for first in range(0, len(ids), READ_BATCH):
            pipe = self._client.pipeline(transaction=False)
            for at in ids[first : first + READ_BATCH]:
                pipe.xrange(STREAM, at, at, count=1)
            found: list[Any] = await pipe.execute()
            rows += [(row[0][0].decode(), _event(row[0][1])) for row in found if row]
        return rows


def _event(fields: dict[bytes, bytes]) -> LearningEvent:
    def text(name: bytes) -> str:
        return fields.get(name, b"").decode()

    vector = np.frombuffer(fields[b"v"], np.float32) if fields[b"v"] else None
    return LearningEvent(
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
