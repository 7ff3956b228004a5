"""Demand as other services know it: calls and tokens from telemetry, queues and costs from the
batcher, instances and held calls from the router.

Work is counted in compute milliseconds: calls and tokens, priced by the batcher's cost model (a
base cost for each call, and a cost for each token).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from penstock.api.batcher.v1 import batcher_pb2
from penstock.api.router.v1 import router_pb2
from penstock.api.telemetry.v1 import telemetry_pb2
from penstock.rpc.call import Call
from penstock.rpc.peers.stream import Peer
from penstock.service.clock import Clock

BATCHER = batcher_pb2.DESCRIPTOR.services_by_name["BatcherService"]
TELEMETRY = telemetry_pb2.DESCRIPTOR.services_by_name["TelemetryService"]
REGISTRY = router_pb2.DESCRIPTOR.services_by_name["RegistryService"]
RPC_TIMEOUT_S = 2.0
MAX_MODELS = 1000


@dataclass(frozen=True)
class CallCost:
    """What a call costs in compute milliseconds, besides its tokens, and for each of them."""

    base_ms: float = 0.0
    per_token_ms: float = 0.0

    def of(self, calls: float, tokens: float) -> float:
        """Return the cost of so many calls with so many tokens in all."""
        return self.base_ms * calls + self.per_token_ms * tokens


@dataclass(frozen=True)
class DemandReading:
    """What services know at one moment, by model.

    Args:
        calls, tokens: totals since telemetry started.
        queued: calls that wait in the batcher.
        costs: what a call costs.
        concurrency: batches that an instance runs at once.
    """

    calls: Mapping[str, int]
    tokens: Mapping[str, int]
    queued: Mapping[str, float]
    costs: Mapping[str, CallCost]
    concurrency: Mapping[str, float]

    def knows(self, model: str) -> bool:
        """Return whether any service has heard of the model."""
        return model in self.calls or model in self.costs


@dataclass(frozen=True)
class FleetCount:
    """Instances of a model that serve, and calls that the router holds for the first one."""

    serving: int
    held_calls: int


class DemandSource:
    """Asks the other services; one that is None is not asked."""

    def __init__(
        self, batcher: Peer | None, telemetry: Peer | None, registry: Peer | None, clock: Clock
    ) -> None:
        self._batcher = batcher
        self._telemetry = telemetry
        self._registry = registry
        self._clock = clock
        self._last: DemandReading | None = None

    async def fleets(self, models: Sequence[str]) -> dict[str, FleetCount]:
        """Return instances and held calls by model, as the router counts them.

        The router holds calls only for models that a scaler asks about.

        Raises:
            Fault: the router cannot be asked.
        """
        if self._registry is None:
            return {}
        request = router_pb2.ListFleetsRequest(scaled=models)
        answer: router_pb2.ListFleetsResponse = await self._registry.call(
            "ListFleets", request, self._call()
        )
        return {row.model: FleetCount(row.serving, row.waiting) for row in answer.fleets}

    async def read(self) -> DemandReading | None:
        """Return what is known now; None where telemetry or the batcher is not configured.

        Raises:
            Fault: telemetry or the batcher cannot be asked.
        """
        if self._batcher is None or self._telemetry is None:
            return None
        by_model = telemetry_pb2.GetCostsRequest(by=telemetry_pb2.COST_BY_MODEL, limit=MAX_MODELS)
        usage: telemetry_pb2.GetCostsResponse = await self._telemetry.call(
            "GetCosts", by_model, self._call()
        )
        queues: batcher_pb2.ListQueuesResponse = await self._batcher.call(
            "ListQueues", batcher_pb2.ListQueuesRequest(), self._call()
        )
        return _reading(usage, queues)

    def since_last(self, reading: DemandReading, model: str) -> tuple[float, float]:
        """Return the work that arrived since the last reading and the work that waits now, in
        compute milliseconds.
        """
        cost = reading.costs.get(model, CallCost())
        calls = tokens = 0
        if self._last is not None:
            calls = _increase(self._last.calls, reading.calls, model)
            tokens = _increase(self._last.tokens, reading.tokens, model)
        tokens_per_call = tokens / calls if calls else 0.0
        queued = reading.queued.get(model, 0.0)
        return cost.of(calls, tokens), queued * cost.of(1, tokens_per_call)

    def remember(self, reading: DemandReading | None) -> None:
        """Compare the next reading with this one; with None, the next one is the first."""
        self._last = reading

    def _call(self) -> Call:
        return Call(deadline_s=self._clock.monotonic() + RPC_TIMEOUT_S)


def _increase(before: Mapping[str, int], now: Mapping[str, int], model: str) -> int:
    """How much a total has grown; all of it where it is smaller, for its service has restarted."""
    total, last = now.get(model, 0), before.get(model, 0)
    return total - last if total >= last else total


def _reading(
    usage: telemetry_pb2.GetCostsResponse, queues: batcher_pb2.ListQueuesResponse
) -> DemandReading:
    """The answers by model; of several cost models of one model, that with the most samples."""
    costs: dict[str, CallCost] = {}
    samples: dict[str, int] = {}
    queued: dict[str, float] = {}
    concurrency: dict[str, float] = {}
    for queue in queues.queues:
        depth = sum(row.depth for row in queue.classes)
        for model, cost in queue.costs.items():
            queued[model] = queued.get(model, 0.0) + depth / len(queue.costs)
            concurrency[model] = max(concurrency.get(model, 1.0), float(queue.concurrency or 1))
            if cost.samples >= samples.get(model, 1):
                costs[model] = CallCost(cost.base_ms, cost.per_token_ms)
                samples[model] = cost.samples
    return DemandReading(
        calls={row.key: row.calls for row in usage.rows},
        tokens={row.key: row.input_tokens + row.output_tokens for row in usage.rows},
        queued=queued,
        costs=costs,
        concurrency=concurrency,
    )
