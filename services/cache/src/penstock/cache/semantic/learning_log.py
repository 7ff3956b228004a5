"""The learning log: a Redis stream of all that semantic scopes have learnt.

Every replica of the cache appends to it and follows it, and changes its scopes by what it reads
only. So all replicas agree, and a restart rebuilds the scopes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import redis.asyncio
from penstock.cache.semantic.classes import Floats
from penstock.cache.semantic.declared_answers import NO_MARGIN

STREAM = "penstock:cache:lessons"
ASSUMED_EVENT_BYTES = 2_500.0
"""Size of an event until some have been appended here."""
MEAN_WEIGHT = 0.01
"""Weight of the latest event in the mean size."""
MIN_EVENTS = 1_000
"""Events that are kept whatever their size."""
READ_BATCH = 1_000

LEARN = "learn"
REMOVE = "remove"
WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class RecordedDecision:
    """What had been decided for a request, as far as scopes learn from it.

    `answer` is the canonical answer of the class that was voted for, since its number may differ
    between replicas. For the other fields see `SemanticDecision`.
    """

    answer: str
    probability: float
    is_audit: bool = False
    features: tuple[float, ...] = ()
    contradiction: str = ""
    is_recheck: bool = False
    answer_margin: float = NO_MARGIN


@dataclass(frozen=True, slots=True)
class LearningEvent:
    """One thing to learn.

    `kind` is LEARN (a call has brought the answer to a prompt), REMOVE (an entry was removed) or
    WRONG (a caller reported an entry as wrong). `key` is the entry that holds the answer.
    """

    kind: str
    tenant: str
    scope_key: str
    key: str
    text: str = ""
    answer: str = ""
    vector: Floats | None = None
    decision: RecordedDecision | None = None
    namespace: str = ""
    model: str = ""
    context_sha256: bytes = b""


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """An event and its place in the log, which is its id in the stream."""

    event_id: str
    event: LearningEvent


class LearningLog:
    """The log, of which the oldest events leave beyond about `max_bytes`.

    The client belongs to whoever made it.
    """

    def __init__(self, client: redis.asyncio.Redis, max_bytes: int) -> None:
        self._client = client
        self.max_bytes = max_bytes
        self._mean_bytes = ASSUMED_EVENT_BYTES

    async def append(self, event: LearningEvent) -> None:
        """Append an event; every replica, this one included, learns it when it reads it."""
        fields = _fields(event)
        size_bytes = sum(len(value) for value in fields.values())
        self._mean_bytes += MEAN_WEIGHT * (size_bytes - self._mean_bytes)
        max_events = max(MIN_EVENTS, round(self.max_bytes / self._mean_bytes))
        await self._client.xadd(STREAM, fields, maxlen=max_events, approximate=True)

    async def read_after(self, event_id: str, wait_ms: int | None) -> list[LoggedEvent]:
        """The events after one, oldest first, at most `READ_BATCH`.

        Where there are none, wait up to `wait_ms` for the first; None does not wait.
        """
        found: Any = await self._client.xread({STREAM: event_id}, count=READ_BATCH, block=wait_ms)
        rows: Sequence[Any] = found[0][1] if found else ()
        return [LoggedEvent(row_id.decode(), _event(fields)) for row_id, fields in rows]

    async def contains(self, event_id: str) -> bool:
        """Whether the log still has this event, so that what follows it follows without a gap."""
        return bool(await self._client.xrange(STREAM, event_id, event_id, count=1))

    async def read(self, event_ids: Sequence[str]) -> list[LoggedEvent]:
        """Those of these events that the log still has, in the given order."""
        events: list[LoggedEvent] = []
        for first in range(0, len(event_ids), READ_BATCH):
            pipe = self._client.pipeline(transaction=False)
            for event_id in event_ids[first : first + READ_BATCH]:
                pipe.xrange(STREAM, event_id, event_id, count=1)
            found: list[Any] = await pipe.execute()
            events += [LoggedEvent(row[0][0].decode(), _event(row[0][1])) for row in found if row]
        return events


def _fields(event: LearningEvent) -> dict[Any, Any]:
    return {
        "k": event.kind,
        "t": event.tenant,
        "s": event.scope_key,
        "e": event.key,
        "x": event.text,
        "a": event.answer,
        "v": event.vector.tobytes() if event.vector is not None else b"",
        "d": _decision_json(event.decision),
        "n": event.namespace,
        "m": event.model,
        "c": event.context_sha256,
    }


def _event(fields: dict[bytes, bytes]) -> LearningEvent:
    def text(name: bytes) -> str:
        return fields.get(name, b"").decode()

    vector = np.frombuffer(fields[b"v"], np.float32) if fields[b"v"] else None
    return LearningEvent(
        kind=text(b"k"),
        tenant=text(b"t"),
        scope_key=text(b"s"),
        key=text(b"e"),
        text=text(b"x"),
        answer=text(b"a"),
        vector=vector,
        decision=_decision(fields[b"d"]),
        namespace=text(b"n"),
        model=text(b"m"),
        context_sha256=fields.get(b"c", b""),
    )


def _decision_json(decision: RecordedDecision | None) -> str:
    if decision is None:
        return "null"
    return json.dumps(
        {
            "answer": decision.answer,
            "probability": decision.probability,
            "audit": decision.is_audit,
            "features": decision.features,
            "gate": decision.contradiction,
            "recheck": decision.is_recheck,
            "margin": decision.answer_margin,
        }
    )


def _decision(text: bytes) -> RecordedDecision | None:
    value = json.loads(text)
    if value is None:
        return None
    return RecordedDecision(
        answer=value["answer"],
        probability=value["probability"],
        is_audit=bool(value.get("audit")),
        features=tuple(value.get("features", ())),
        contradiction=value.get("gate", ""),
        is_recheck=bool(value.get("recheck")),
        answer_margin=value.get("margin", NO_MARGIN),
    )
