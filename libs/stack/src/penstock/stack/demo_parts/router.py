"""Three instances behind the router, one of which becomes eight times slower.

Shown are each instance's share of the requests and its score, before and after.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass

from penstock.api.router.v1 import router_pb2
from penstock.stack.stack import Stack
from penstock.testkit.instance import SleepingInstance
from penstock.testkit.registered import Registration, registered_instance
from rich.console import Console
from rich.table import Table

TITLE = "router: one of three instances becomes slow"
MODEL = "demo-sleeper"
INSTANCES = ("sleeper-1", "sleeper-2", "sleeper-3")
SLOWED = INSTANCES[-1]
FAST_S, SLOW_S = 0.010, 0.080
"""Seconds a request, one at a time."""
CALLERS = 6
WARM_UP_S = 0.5
BEFORE_S, REACTING_S, AFTER_S = 1.0, 1.0, 1.5
"""Lengths of the phases; in the second the router notices the slow instance."""
CALL_TIMEOUT_S = 10


@dataclass(frozen=True)
class Phase:
    """One stretch of load: requests by instance, latencies, and scores in seconds at its end."""

    requests: Counter[str]
    latencies_ms: list[float]
    scores_s: dict[str, float]

    def share(self, name: str) -> float:
        """Share of the requests that an instance got."""
        return self.requests[name] / max(1, self.requests.total())

    def p95_ms(self) -> float:
        """95th percentile of the latencies in milliseconds; 0 without any."""
        ordered = sorted(self.latencies_ms)
        return ordered[int(0.95 * len(ordered))] if ordered else 0.0


async def run(stack: Stack, console: Console) -> dict[str, float]:
    """Load three equal instances, slow one down, and go on."""
    tenant = next(iter(stack.keys))
    async with _instances(stack) as instances:
        await stack.wait_for_instances(MODEL, len(instances), tenant)
        await _load(stack, tenant, WARM_UP_S)
        before = await _load(stack, tenant, BEFORE_S)
        instances[SLOWED].compute_s = SLOW_S
        reacting = await _load(stack, tenant, REACTING_S)
        after = await _load(stack, tenant, AFTER_S)
    console.print(_table({"before": before, f"first {REACTING_S} s": reacting, "after": after}))
    return {
        "router_slow_share_before": before.share(SLOWED),
        "router_slow_share_after": after.share(SLOWED),
        "router_p95_ms_before": before.p95_ms(),
        "router_p95_ms_after": after.p95_ms(),
    }


@contextlib.asynccontextmanager
async def _instances(stack: Stack) -> AsyncIterator[dict[str, SleepingInstance]]:
    """Instances in this process, registered with the stack's router until the block ends."""
    instances = {name: SleepingInstance(FAST_S) for name in INSTANCES}
    async with contextlib.AsyncExitStack() as running:
        for name, instance in instances.items():
            await running.enter_async_context(
                registered_instance(
                    instance,
                    Registration(name, MODEL),
                    stack.addresses["router"],
                    stack.internal_token,
                )
            )
        yield instances


async def _load(stack: Stack, tenant: str, seconds: float) -> Phase:
    requests = Counter[str]()
    latencies_ms: list[float] = []
    metadata = stack.metadata(tenant)
    options = router_pb2.CallOptions(model=MODEL, cache=router_pb2.CachePolicy(bypass=True))
    request = router_pb2.EmbedRequest(texts=["one step of an agent"], options=options)
    end_s = time.monotonic() + seconds

    async def caller() -> None:
        while time.monotonic() < end_s:
            started_s = time.monotonic()
            answer = await stack.router.Embed(request, metadata=metadata, timeout=CALL_TIMEOUT_S)
            latencies_ms.append((time.monotonic() - started_s) * 1e3)
            requests[answer.receipt.route.instance_id] += 1

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    board = await stack.router.GetScoreboard(
        router_pb2.GetScoreboardRequest(model=MODEL), metadata=metadata
    )
    scores_s = {row.instance.id: row.candidate.score for row in board.rows}
    return Phase(requests, latencies_ms, scores_s)


def _table(phases: dict[str, Phase]) -> Table:
    slowdown = f"{SLOW_S / FAST_S:.0f}"
    table = Table("", *phases, title=f"{SLOWED} is {slowdown} times slower after the first phase")
    for name in INSTANCES:
        cells = [
            f"{phase.share(name):.0%}  (score {phase.scores_s.get(name, 0.0) * 1e3:.1f} ms)"
            for phase in phases.values()
        ]
        table.add_row(f"{name} (slowed)" if name == SLOWED else name, *cells)
    table.add_row("p95", *(f"{phase.p95_ms():.0f} ms" for phase in phases.values()))
    return table
