"""Two priorities under load: low-priority callers keep the queues full, critical calls come in
between; who waits is shown side by side.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Sequence

import grpc
from penstock.api.common.v1 import common_pb2
from penstock.api.router.v1 import router_pb2
from penstock.stack.stack import Stack
from penstock.stack.workload import AGENTS, agent_requests
from rich.console import Console
from rich.table import Table

TITLE = "batcher: urgent work under load"
LOW_CALLERS, URGENT = 24, 60
DEADLINE_S = 30.0
AFTER_REFUSAL_S = 0.02


async def run(stack: Stack, console: Console) -> dict[str, float]:
    """Send both and show waits and batch sizes by priority; low work that the router sheds under
    load is counted, not hidden.
    """
    texts = [request.text for request in agent_requests()]
    low: list[common_pb2.Receipt] = []
    shed = 0

    async def one(number: int, priority: common_pb2.Priority) -> common_pb2.Receipt:
        options = router_pb2.CallOptions(
            priority=priority, cache=router_pb2.CachePolicy(bypass=True)
        )
        request = router_pb2.EmbedRequest(options=options, texts=[texts[number % len(texts)]])
        tenant = AGENTS[number % len(AGENTS)].tenant
        answer = await stack.router.Embed(
            request, metadata=stack.metadata(tenant), timeout=DEADLINE_S
        )
        receipt: common_pb2.Receipt = answer.receipt
        return receipt

    async def low_caller(number: int) -> None:
        nonlocal shed
        while not done.is_set():
            try:
                low.append(await one(number, common_pb2.PRIORITY_LOW))
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise
                shed += 1
                await asyncio.sleep(AFTER_REFUSAL_S)

    done = asyncio.Event()
    callers = [asyncio.create_task(low_caller(number)) for number in range(LOW_CALLERS)]
    urgent = [await one(number, common_pb2.PRIORITY_CRITICAL) for number in range(URGENT)]
    done.set()
    await asyncio.gather(*callers)
    _show({"critical": urgent, "low": low}, shed, console)
    return {
        "critical_wait_p50_ms": round(
            statistics.median(receipt.batch.queued_ms for receipt in urgent), 2
        ),
        "low_wait_p50_ms": round(statistics.median(receipt.batch.queued_ms for receipt in low), 2),
        "low_shed": shed,
    }


def _show(served: dict[str, Sequence[common_pb2.Receipt]], shed: int, console: Console) -> None:
    table = Table("priority", "served", "wait p50 ms", "wait p99 ms", "rows in the batch, mean")
    for name, receipts in served.items():
        waits = sorted(receipt.batch.queued_ms for receipt in receipts)
        sizes = statistics.mean(receipt.batch.batch_size for receipt in receipts)
        p99 = waits[int(0.99 * (len(waits) - 1))]
        table.add_row(
            name,
            str(len(receipts)),
            f"{statistics.median(waits):.1f}",
            f"{p99:.1f}",
            f"{sizes:.1f}",
        )
    console.print(table)
    console.print(
        f"{LOW_CALLERS} low-priority callers asked all the time; the router shed {shed} of "
        "their calls"
    )
