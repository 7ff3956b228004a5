"""What scalers share and keep in Redis: samples, decisions, calibrations, notices, and who leads.

Every scaler reads and writes; only the leader decides and acts. Without Redis a scaler is alone,
leads, and forgets everything when it ends. A lost store is logged and never stops a decision: reads
return nothing and writes are dropped. `lead` alone raises, for the caller has to know.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import redis.asyncio
from penstock.scaler.decide.measurements import Calibration
from penstock.scaler.forecast.features import Sample
from penstock.scaler.pools.planner import Decision
from redis.exceptions import RedisError

log = logging.getLogger(__name__)

T = TypeVar("T")
STORE_ERRORS = (RedisError, OSError, TimeoutError)
"""What a call to Redis raises when the store is lost."""
MAX_DECISIONS = 1000
KEPT_S = 60 * 86_400
"""The history of a pool without reports is forgotten after this time."""
LEADER = "penstock:scaler:leader"
NOTICES = "penstock:scaler:notices"
NOTICE_KEPT_S = 120
"""A notice that nobody took in this time is about a machine that has gone."""
MAX_NOTICES = 1000
RENEW_LEAD = (
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], "
    "ARGV[2]) else return 0 end"
)
RELEASE_LEAD = (
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) "
    "else return 0 end"
)


@dataclass(frozen=True)
class PoolRecord:
    """What is stored about a pool: samples, oldest first; decisions, newest first; calibration."""

    samples: list[Sample]
    decisions: list[Decision]
    calibration: Calibration | None


EMPTY_RECORD = PoolRecord([], [], None)


class ScalerStore:
    """The store of all pools. Owner of the client: whoever opened it.

    Args:
        client: None where there is no store.
        scaler_id: distinguishes this scaler from others in the election of the leader.
    """

    def __init__(self, client: redis.asyncio.Redis | None, scaler_id: str) -> None:
        self._client = client
        self._scaler_id = scaler_id

    async def load(self, pool: str, max_samples: int, max_decisions: int) -> PoolRecord:
        """Return the newest samples and decisions of a pool, and its calibration.

        Rows that cannot be read are left out.
        """
        if self._client is None:
            return EMPTY_RECORD
        reading = self._load(self._client, pool, max_samples, max_decisions)
        record: PoolRecord = await _tolerated(
            reading, f"{pool}: history cannot be read", default=EMPTY_RECORD
        )
        return record

    async def samples(self, pool: str, max_samples: int) -> list[Sample]:
        """Return the newest samples of a pool, oldest first."""
        if self._client is None:
            return []
        reading = self._client.lrange(_key(pool, "samples"), -max_samples, -1)
        rows = await _tolerated(reading, f"{pool}: samples cannot be read", default=[])
        return parsed_rows(rows, _sample)

    async def _load(
        self, client: redis.asyncio.Redis, pool: str, max_samples: int, max_decisions: int
    ) -> PoolRecord:
        samples = await client.lrange(_key(pool, "samples"), -max_samples, -1)
        decisions = await client.lrange(_key(pool, "decisions"), 0, max_decisions - 1)
        calibration = await client.get(_key(pool, "learnt"))
        calibrations = parsed_rows([calibration] if calibration else [], _calibration)
        return PoolRecord(
            parsed_rows(samples, _sample),
            parsed_rows(decisions, lambda row: Decision(**row)),
            calibrations[0] if calibrations else None,
        )

    async def save_samples(self, pool: str, samples: Sequence[Sample], max_samples: int) -> None:
        """Append samples to the pool's history; the oldest above `max_samples` are forgotten."""
        if self._client is None or not samples:
            return
        key = _key(pool, "samples")
        rows = [json.dumps([sample.start_s, sample.work, sample.backlog]) for sample in samples]
        pipeline = self._client.pipeline()
        pipeline.rpush(key, *rows)
        pipeline.ltrim(key, -max_samples, -1)
        pipeline.expire(key, KEPT_S)
        await _tolerated(pipeline.execute(), f"{pool}: samples are not stored", default=None)

    async def save_decision(self, decision: Decision) -> None:
        """Add a decision; the oldest above MAX_DECISIONS are forgotten."""
        if self._client is None:
            return
        key = _key(decision.pool, "decisions")
        pipeline = self._client.pipeline()
        pipeline.lpush(key, json.dumps(asdict(decision)))
        pipeline.ltrim(key, 0, MAX_DECISIONS - 1)
        pipeline.expire(key, KEPT_S)
        what = f"{decision.pool}: a decision is not stored"
        await _tolerated(pipeline.execute(), what, default=None)

    async def save_calibration(self, pool: str, calibration: Calibration) -> None:
        """Replace the pool's calibration."""
        if self._client is None:
            return
        row = json.dumps([calibration.lead_times_s, calibration.capacity_correction])
        setting = self._client.set(_key(pool, "learnt"), row, ex=KEPT_S)
        await _tolerated(setting, f"{pool}: the calibration is not stored", default=None)

    async def forward_notice(self, instance: str, at_s: float) -> bool:
        """Leave a notice for the leader; False where it cannot be stored.

        Args:
            at_s: when the instance will be gone, in Unix seconds; 0 where unknown.
        """
        if self._client is None:
            return False
        pipeline = self._client.pipeline()
        pipeline.rpush(NOTICES, json.dumps([instance, at_s]))
        pipeline.expire(NOTICES, NOTICE_KEPT_S)
        what = f"the notice about {instance} cannot be forwarded to the leader"
        return await _tolerated(pipeline.execute(), what, default=None) is not None

    async def take_notices(self) -> list[tuple[str, float]]:
        """Return notices forwarded since the last call (instance, Unix seconds), each once."""
        if self._client is None:
            return []
        popping = self._client.lpop(NOTICES, MAX_NOTICES)
        rows = await _tolerated(popping, "forwarded notices cannot be read", default=None)
        if isinstance(rows, str | bytes):
            rows = [rows]
        return parsed_rows(rows or [], lambda row: (str(row[0]), float(row[1])))

    def offerings_state(self, pool: str) -> OfferingsStateStore:
        """Return the place where a pool's spot fleet keeps what it learned."""
        return OfferingsStateStore(self._client, _key(pool, "zones"))

    async def lead(self, lease_ms: int) -> bool:
        """Take or renew the lead; return whether this scaler holds it.

        Raises:
            RedisError, OSError, TimeoutError: the store is lost.
        """
        if self._client is None:
            return True
        if await self._client.set(LEADER, self._scaler_id, nx=True, px=lease_ms):
            return True
        return bool(await self._client.eval(RENEW_LEAD, 1, LEADER, self._scaler_id, lease_ms))

    async def release_lead(self) -> None:
        """Give up the lead, so that another scaler need not wait for it to expire."""
        if self._client is None:
            return
        releasing = self._client.eval(RELEASE_LEAD, 1, LEADER, self._scaler_id)
        what = "the lead is not released and will expire"
        await _tolerated(releasing, what, default=None)


class OfferingsStateStore:
    """Keeps what one spot fleet learned of its offerings, as text; forgets it without Redis."""

    def __init__(self, client: redis.asyncio.Redis | None, key: str) -> None:
        self._client = client
        self._key = key

    async def load(self) -> str | None:
        """Return what was saved last; None where nothing is, or the store is lost."""
        if self._client is None:
            return None
        getting = self._client.get(self._key)
        row = await _tolerated(getting, f"{self._key} cannot be read", default=None)
        return row.decode(errors="replace") if isinstance(row, bytes) else row

    async def save(self, text: str) -> None:
        """Replace what was saved."""
        if self._client is None:
            return
        setting = self._client.set(self._key, text, ex=KEPT_S)
        await _tolerated(setting, f"{self._key} is not stored", default=None)


def parsed_rows(rows: Sequence[bytes | str], parse: Callable[[Any], T]) -> list[T]:
    """Return the parsed JSON of each row. A row that an older or newer scaler wrote and this one
    cannot read is logged and left out.
    """
    found = []
    for row in rows:
        try:
            found.append(parse(json.loads(row)))
        except (ValueError, TypeError, LookupError) as error:
            log.warning("a stored row cannot be read and is left out: %s", error)
    return found


async def _tolerated(operation: Awaitable[Any], what: str, *, default: Any) -> Any:
    """The result of an operation; where the store is lost, the default, after a line in the log."""
    try:
        return await operation
    except STORE_ERRORS as error:
        log.warning("%s: %s", what, error)
        return default


def _key(pool: str, kind: str) -> str:
    return f"penstock:scaler:{pool}:{kind}"


def _sample(row: Any) -> Sample:
    return Sample(*(float(value) for value in row))


def _calibration(row: Any) -> Calibration:
    return Calibration(tuple(map(float, row[0])), float(row[1]))
