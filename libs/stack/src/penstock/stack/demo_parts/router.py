"""Three small instances behind the real router; one is slowed eight times.

Who gets how much, at which score, before and after.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass

from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.hosting.grpc_server import GrpcServer
from penstock.rpc.auth import internal
from penstock.rpc.call import Call
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.registration import Registrar
from penstock.service.settings import ServiceSettings
from penstock.stack.stack import Stack
from penstock.testkit.instance import QuietInstance
from rich.console import Console
from rich.table import Table

TITLE = "Router: one of three instances becomes slow"

MODEL = "demo-sleeper"
SERVICE = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"]
QUICK_S, SLOW_S = 0.010, 0.080
CALLERS = 6
BEFORE_S, AFTER_S = 2.0, 4.0
SETTLED_S = 1.5
"""The first part of the second phase, in which the router finds out; its shares are shown apart."""


class Sleeper(QuietInstance):
    """Answers each request after a while, one at a time, as a model on one core does."""

    def __init__(self) -> None:
        self.seconds = QUICK_S
        self._turn = asyncio.Lock()

    async def Compute(
        self, request: inference_pb2.ComputeRequest, call: Call
    ) -> inference_pb2.ComputeResponse:
        async with self._turn:
            await asyncio.sleep(self.seconds)
        result = inference_pb2.TaskResult(revision="demo", compute_ms=self.seconds * 1e3)
        result.embed.embeddings.add(values=[1.0])
        return inference_pb2.ComputeResponse(result=result)

    async def ComputeBatch(
        self, request: inference_pb2.ComputeBatchRequest, call: Call
    ) -> AsyncIterator[inference_pb2.ComputeBatchResponse]:
        for index, member in enumerate(request.members):
            answer = await self.Compute(inference_pb2.ComputeRequest(task=member.task), call)
            response = inference_pb2.ComputeBatchResponse()
            response.results.add(index=index, result=answer.result).status.SetInParent()
            yield response


@dataclass(frozen=True)
class Phase:
    """What one stretch of load showed: requests by instance, latencies in ms, scores at its end."""

    served: Counter[str]
    latencies_ms: list[float]
    scores: dict[str, float]

    def share(self, name: str) -> float:
        return self.served[name] / max(1, self.served.total())

    def p95_ms(self) -> float:
        ordered = sorted(self.latencies_ms)
        return ordered[int(0.95 * len(ordered))] if ordered else 0.0


async def run(stack: Stack, console: Console) -> dict[str, float]:
    tenant = next(iter(stack.keys))
    async with _sleepers(stack) as sleepers:
        await stack.wait_for_instances(MODEL, len(sleepers), tenant)
        await _load(stack, tenant, SETTLED_S / 2)
        before = await _load(stack, tenant, BEFORE_S)
        slowed = sorted(sleepers)[-1]
        sleepers[slowed].seconds = SLOW_S
        turning = await _load(stack, tenant, SETTLED_S)
        after = await _load(stack, tenant, AFTER_S)
    phases = {"before": before, "the first 1.5 s": turning, "after": after}
    console.print(_table(phases, sorted(sleepers), slowed))
    return {
        "router_slow_share_before": before.share(slowed),
        "router_slow_share_after": after.share(slowed),
        "router_p95_ms_before": before.p95_ms(),
        "router_p95_ms_after": after.p95_ms(),
    }


@contextlib.asynccontextmanager
async def _sleepers(stack: Stack) -> AsyncIterator[dict[str, Sleeper]]:
    """Three instances in this process, registered with the stack's router; gone afterwards."""
    sleepers = {f"sleeper-{number}": Sleeper() for number in (1, 2, 3)}
    token = stack.internal_token
    model = inference_pb2.Model(
        name=MODEL, state=inference_pb2.MODEL_STATE_READY, tasks=["embed"], revision="demo"
    )
    async with contextlib.AsyncExitStack() as owned:
        for name, sleeper in sleepers.items():
            server = GrpcServer(
                name,
                ServiceSettings(listen="127.0.0.1:0", drain_s=0),
                [Endpoint(SERVICE, sleeper, internal(token))],
            )
            await server.start()
            owned.push_async_callback(server.stop, None)
            instance = router_pb2.Instance(
                id=name, address=server.address, models=[model], concurrency=1
            )
            registrar = Registrar(stack.addresses["router"], instance, token)
            registrar.start()
            owned.push_async_callback(registrar.leave)
        yield sleepers


async def _load(stack: Stack, tenant: str, seconds: float) -> Phase:
    served, latencies = Counter[str](), list[float]()
    metadata, end = stack.metadata(tenant), time.monotonic() + seconds
    options = router_pb2.CallOptions(model=MODEL, cache=router_pb2.CachePolicy(bypass=True))
    request = router_pb2.EmbedRequest(texts=["one step of an agent"], options=options)

    async def caller() -> None:
        while time.monotonic() < end:
            began = time.monotonic()
            answer = await stack.router.Embed(request, metadata=metadata, timeout=10)
            latencies.append((time.monotonic() - began) * 1e3)
            served[answer.receipt.route.instance_id] += 1

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    board = await stack.router.GetScoreboard(
        router_pb2.GetScoreboardRequest(model=MODEL), metadata=metadata
    )
    return Phase(served, latencies, {row.instance.id: row.candidate.score for row in board.rows})


def _table(phases: dict[str, Phase], names: list[str], slowed: str) -> Table:
    table = Table(
        "",
        *phases,
        title=f"{slowed} takes {SLOW_S / QUICK_S:.0f} times as long from the second phase on",
    )
    for name in names:
        cells = [
            f"{phase.share(name):.0%}  (score {phase.scores.get(name, 0.0) * 1e3:.1f} ms)"
            for phase in phases.values()
        ]
        table.add_row(f"{name}{' (slowed)' if name == slowed else ''}", *cells)
    table.add_row("p95", *(f"{phase.p95_ms():.0f} ms" for phase in phases.values()))
    return table
