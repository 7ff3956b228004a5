"""The world outside: history and lead in Redis, demand from telemetry and batcher, draining at the
router.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import redis.asyncio
from penstock.api.batcher.v1 import batcher_pb2
from penstock.api.router.v1 import router_pb2
from penstock.api.telemetry.v1 import telemetry_pb2
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault
from penstock.rpc.peers.stream import Peer
from penstock.scaler.decide.learning import Learnt
from penstock.scaler.pools.pool import Decision
from penstock.scaler.samples import Sample
from penstock.service.clock import Clock
from redis.exceptions import RedisError

log = logging.getLogger(__name__)

BATCHER = batcher_pb2.DESCRIPTOR.services_by_name["BatcherService"]
TELEMETRY = telemetry_pb2.DESCRIPTOR.services_by_name["TelemetryService"]
REGISTRY = router_pb2.DESCRIPTOR.services_by_name["RegistryService"]
RPC_S = 2.0
KEPT_DECISIONS = 1000
KEPT_S = 60 * 86_400
"""The history of a pool that nobody reports on any more is forgotten after so long."""
NOTICES, NOTICES_S, MOST_NOTICES = "penstock:scaler:notices", 120, 1000
RENEW = (
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], "
    "ARGV[2]) else return 0 end"
)
T = TypeVar("T")
LOST = (RedisError, OSError, TimeoutError)


class Store:
    """Samples and decisions of every pool, and who leads.

    Without Redis a scaler is alone and forgets at its end.

    Owner: whoever opened the client closes it.
    """

    def __init__(self, client: redis.asyncio.Redis | None, who: str) -> None:
        self._client, self._who = client, who

    async def samples(self, pool: str, last: int = 0) -> list[Sample]:
        """The history, oldest first, or only the last rows of it; rows that cannot be read are left
        out.
        """
        if self._client is None:
            return []
        rows = await self._client.lrange(f"penstock:scaler:{pool}:samples", -last, -1)
        return readable(rows, lambda row: Sample(*(float(value) for value in row)))

    async def keep_samples(self, pool: str, samples: Sequence[Sample], most: int) -> None:
        """Add to the history, forget the oldest above `most`."""
        if self._client is None or not samples:
            return
        key = f"penstock:scaler:{pool}:samples"
        pipeline = self._client.pipeline()
        pipeline.rpush(key, *(json.dumps([one.start_s, one.work, one.backlog]) for one in samples))
        pipeline.ltrim(key, -most, -1)
        pipeline.expire(key, KEPT_S)
        await pipeline.execute()

    async def decisions(self, pool: str, limit: int) -> list[Decision]:
        """Decisions, the newest first."""
        if self._client is None:
            return []
        rows = await self._client.lrange(f"penstock:scaler:{pool}:decisions", 0, limit - 1)
        return readable(rows, lambda row: Decision(**row))

    async def keep_decision(self, decision: Decision) -> None:
        """Add a decision."""
        if self._client is None:
            return
        key = f"penstock:scaler:{decision.pool}:decisions"
        pipeline = self._client.pipeline()
        pipeline.lpush(key, json.dumps(decision.as_dict()))
        pipeline.ltrim(key, 0, KEPT_DECISIONS - 1)
        pipeline.expire(key, KEPT_S)
        await pipeline.execute()

    async def learnt(self, pool: str) -> Learnt | None:
        """What the pool's past decisions taught; None where nothing (readable) is kept."""
        row = (
            await self._client.get(f"penstock:scaler:{pool}:learnt")
            if self._client is not None
            else None
        )
        found = readable(
            [row] if row is not None else [],
            lambda kept: Learnt(tuple(map(float, kept[0])), float(kept[1])),
        )
        return found[0] if found else None

    async def keep_learnt(self, pool: str, learnt: Learnt) -> None:
        """Keep what the pool's past decisions taught, in place of what was kept."""
        if self._client is not None:
            row = json.dumps([learnt.lead_times_s, learnt.correction])
            await self._client.set(f"penstock:scaler:{pool}:learnt", row, ex=KEPT_S)

    async def pass_on(self, instance: str, at_s: float) -> bool:
        """Tell the one that leads that an instance will go at a moment (0: not said); False where
        there is no store to tell it through.
        """
        if self._client is None:
            return False
        pipeline = self._client.pipeline()
        pipeline.rpush(NOTICES, json.dumps([instance, at_s]))
        pipeline.expire(
            NOTICES, NOTICES_S
        )  # what nobody took in time is about machines that have gone
        await pipeline.execute()
        return True

    async def passed_on(self) -> list[tuple[str, float]]:
        """Notices that others were given since the last call, each returned once."""
        rows = await self._client.lpop(NOTICES, MOST_NOTICES) if self._client is not None else None
        found = [rows] if isinstance(rows, str | bytes) else rows or []
        return readable(found, lambda row: (str(row[0]), float(row[1])))

    def zones(self, pool: str) -> ZoneMemory:
        """Keeper of what a pool's spot fleet learnt of its zones."""
        return ZoneMemory(self._client, f"penstock:scaler:{pool}:zones")

    async def lead(self, lease_ms: int) -> bool:
        """Whether this scaler may act: it holds the lead, or takes it where nobody does."""
        if self._client is None:
            return True
        key = "penstock:scaler:leader"
        if await self._client.set(key, self._who, nx=True, px=lease_ms):
            return True
        return bool(await self._client.eval(RENEW, 1, key, self._who, lease_ms))

    async def leave(self) -> None:
        """Give up the lead, so that another need not wait."""
        if self._client is None:
            return
        script = RENEW.replace(
            "redis.call('PEXPIRE', KEYS[1], ARGV[2])", "redis.call('DEL', KEYS[1])"
        )
        await self._client.eval(script, 1, "penstock:scaler:leader", self._who)


class ZoneMemory:
    """What a spot fleet learnt, in Redis; without Redis it is forgotten."""

    def __init__(self, client: redis.asyncio.Redis | None, key: str) -> None:
        self._client, self._key = client, key

    async def recall(self) -> str | None:
        """What was kept last; None where nothing is, or Redis is lost."""
        try:
            row = await self._client.get(self._key) if self._client is not None else None
        except LOST as error:
            log.warning("what was learnt of zones cannot be read: %s", error)
            return None
        return row.decode(errors="replace") if isinstance(row, bytes) else row

    async def keep(self, text: str) -> None:
        """Keep it in place of what was kept."""
        if self._client is None:
            return
        try:
            await self._client.set(self._key, text, ex=KEPT_S)
        except LOST as error:
            log.warning("what was learnt of zones is not kept: %s", error)


def readable(rows: Sequence[bytes | str], made: Callable[[Any], T]) -> list[T]:
    """What rows of JSON say; those that say nothing known are left out, for an older or newer
    scaler may have kept them.
    """
    found = []
    for row in rows:
        try:
            found.append(made(json.loads(row)))
        except (ValueError, TypeError, LookupError) as error:
            log.warning("a row of the history cannot be read: %s", error)
    return found


@dataclass(frozen=True)
class Seen:
    """What services said at one moment: totals by model, work waiting, and what a unit of work
    costs.
    """

    calls: Mapping[str, int]
    tokens: Mapping[str, int]
    waiting: Mapping[str, float]
    costs: Mapping[str, tuple[float, float]]
    concurrency: Mapping[str, float]

    def knows(self, model: str) -> bool:
        """Whether any service has heard of the model."""
        return model in self.calls or model in self.costs


class Demand:
    """Demand in compute milliseconds: calls and tokens from telemetry, priced by the batcher's cost
    model (base + per token).
    """

    def __init__(
        self,
        batcher: Peer | None,
        telemetry: Peer | None,
        clock: Clock,
        registry: Peer | None = None,
    ) -> None:
        self._batcher, self._telemetry, self._registry, self._clock = (
            batcher,
            telemetry,
            registry,
            clock,
        )
        self._last: Seen | None = None

    async def fleets(self, models: Sequence[str]) -> dict[str, tuple[int, int]]:
        """(instances that serve, calls that wait for the first) by model, as the router counts
        them; it lets calls for these wait.

        Raises:
            Fault: the router cannot be asked.
        """
        if self._registry is None:
            return {}
        request = router_pb2.ListFleetsRequest(scaled=models)
        answer: router_pb2.ListFleetsResponse = await self._registry.call(
            "ListFleets", request, self._call()
        )
        return {row.model: (row.serving, row.waiting) for row in answer.fleets}

    async def read(self) -> Seen | None:
        """What is known now; None where a service is not there to ask."""
        if self._batcher is None or self._telemetry is None:
            return None
        by = telemetry_pb2.GetCostsRequest(by=telemetry_pb2.COST_BY_MODEL, limit=1000)
        rows: telemetry_pb2.GetCostsResponse = await self._telemetry.call(
            "GetCosts", by, self._call()
        )
        queues: batcher_pb2.ListQueuesResponse = await self._batcher.call(
            "ListQueues", batcher_pb2.ListQueuesRequest(), self._call()
        )
        return _seen(rows, queues)

    def since_last(self, seen: Seen, model: str) -> tuple[float, float]:
        """(work that arrived since the last reading, work waiting now), in compute milliseconds; a
        restarted telemetry counts from zero.
        """
        last, self_costs = self._last, seen.costs.get(model, (0.0, 0.0))
        calls, tokens = seen.calls.get(model, 0), seen.tokens.get(model, 0)
        if last is None:
            calls = tokens = 0
        else:
            calls = calls - last.calls.get(model, 0) if calls >= last.calls.get(model, 0) else calls
            tokens = (
                tokens - last.tokens.get(model, 0)
                if tokens >= last.tokens.get(model, 0)
                else tokens
            )
        base, per_token = self_costs
        mean_tokens = tokens / calls if calls else 0.0
        return base * calls + per_token * tokens, seen.waiting.get(model, 0.0) * (
            base + per_token * mean_tokens
        )

    def remember(self, seen: Seen | None) -> None:
        """The next reading is compared with this one; with None, it is the first."""
        self._last = seen

    def _call(self) -> Call:
        return Call(deadline_s=self._clock.monotonic() + RPC_S)


def _seen(rows: telemetry_pb2.GetCostsResponse, queues: batcher_pb2.ListQueuesResponse) -> Seen:
    costs: dict[str, tuple[float, float]] = {}
    waiting: dict[str, float] = {}
    concurrency: dict[str, float] = {}
    known: dict[str, int] = {}
    for queue in queues.queues:
        depth = sum(row.depth for row in queue.classes)
        for model, cost in queue.costs.items():
            waiting[model] = waiting.get(model, 0.0) + depth / len(queue.costs)
            concurrency[model] = max(concurrency.get(model, 1.0), float(queue.concurrency or 1))
            if cost.samples >= known.get(model, 1):
                costs[model], known[model] = (cost.base_ms, cost.per_token_ms), cost.samples
    return Seen(
        {row.key: row.calls for row in rows.rows},
        {row.key: row.input_tokens + row.output_tokens for row in rows.rows},
        waiting,
        costs,
        concurrency,
    )


class Drainer:
    """Stops new work to an instance at the router and waits until what it has is done.

    Args:
        patience_s: longest wait for work in flight; streams that last longer are cut by the
            instance's own grace.
    """

    def __init__(self, registry: Peer, clock: Clock, patience_s: float = 30.0) -> None:
        self._registry, self._clock, self._patience_s = registry, clock, patience_s

    async def drain(self, instance: str, reason: str) -> None:
        """Drain; a router that does not know the instance, or is not there, is not waited for.

        The instance itself leaves when it ends.
        """
        end = self._clock.monotonic() + self._patience_s
        while self._clock.monotonic() < end and await self.begin(instance, reason):
            await self._clock.sleep(0.2)

    async def begin(self, instance: str, reason: str) -> int | None:
        """Let the router send no more there; returns the requests in flight, None where the router
        knows no such instance or is away.
        """
        request = router_pb2.DrainRequest(instance_id=instance, reason=reason)
        try:
            call = Call(deadline_s=self._clock.monotonic() + RPC_S)
            answer: router_pb2.DrainResponse = await self._registry.call("Drain", request, call)
        except Fault as fault:
            log.warning("draining %s: %s", instance, fault)
            return None
        return answer.in_flight
