"""Two priorities under load: low-priority work floods the queues, critical calls come in between, and who waits is shown side by side."""

from __future__ import annotations

import asyncio
import statistics

from penstock.api.common.v1 import common_pb2
from penstock.api.router.v1 import router_pb2
from penstock.stack.stack import Stack
from penstock.stack.workload import AGENTS, requests
from rich.console import Console
from rich.table import Table

TITLE = "batcher: urgent work under load"
FLOOD, URGENT = 300, 40
DEADLINE_S = 30.0


async def run(stack: Stack, console: Console) -> dict[str, float]:
    """Send both and show waits and batch sizes by priority."""
    texts = [request.text for request in requests()]

    async def one(number: int, priority: common_pb2.Priority) -> common_pb2.Receipt:
        options = router_pb2.CallOptions(priority=priority)
        request = router_pb2.EmbedRequest(options=options, texts=[texts[number % len(texts)]])
        tenant = AGENTS[number % len(AGENTS)].tenant
        answer = await stack.router.Embed(request, metadata=stack.metadata(tenant), timeout=DEADLINE_S)
        receipt: common_pb2.Receipt = answer.receipt
        return receipt

    flood = [asyncio.create_task(one(number, common_pb2.PRIORITY_LOW)) for number in range(FLOOD)]
    urgent = [await one(number, common_pb2.PRIORITY_CRITICAL) for number in range(URGENT)]
    low = list(await asyncio.gather(*flood))
    table = Table("priority", "requests", "wait p50 ms", "wait p99 ms", "rows in the batch, mean")
    for name, receipts in (("critical", urgent), ("low", low)):
        waits = sorted(receipt.batch.queued_ms for receipt in receipts)
        sizes = statistics.mean(receipt.batch.batch_size for receipt in receipts)
        p99 = waits[int(0.99 * (len(waits) - 1))]
        table.add_row(name, str(len(receipts)), f"{statistics.median(waits):.1f}", f"{p99:.1f}", f"{sizes:.1f}")
    console.print(table)
    return {
        "critical_wait_p50_ms": round(statistics.median(receipt.batch.queued_ms for receipt in urgent), 2),
        "low_wait_p50_ms": round(statistics.median(receipt.batch.queued_ms for receipt in low), 2),
    }
