"""Two priorities under load: how long critical and low-priority calls wait, side by side.

Low-priority callers keep the queues full; critical calls come one after the other in between.
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

TITLE = "batcher: critical calls under load"
LOW_PRIORITY_CALLERS = 24
CRITICAL_CALLS = 60
DEADLINE_S = 30.0
PAUSE_AFTER_REFUSAL_S = 0.02
TEXTS = tuple(request.text for request in agent_requests())


async def run(stack: Stack, console: Console) -> dict[str, float]:
    """Send both kinds of calls; show waits and batch sizes by priority, and refused calls."""
    load = LowPriorityLoad(stack)
    callers = [asyncio.create_task(load.call_until_stopped(n)) for n in range(LOW_PRIORITY_CALLERS)]
    critical = [
        await embed(stack, number, common_pb2.PRIORITY_CRITICAL) for number in range(CRITICAL_CALLS)
    ]
    load.stop()
    await asyncio.gather(*callers)
    _show({"critical": critical, "low": load.receipts}, load.refused, console)
    return {
        "critical_wait_p50_ms": round(_median_wait_ms(critical), 2),
        "low_wait_p50_ms": round(_median_wait_ms(load.receipts), 2),
        "low_shed": load.refused,
    }


class LowPriorityLoad:
    """Callers that send low-priority calls until they are stopped.

    Attributes:
        receipts: of the answers.
        refused: number of calls that the router refused under load.
    """

    def __init__(self, stack: Stack) -> None:
        self.receipts: list[common_pb2.Receipt] = []
        self.refused = 0
        self._stack = stack
        self._stopped = False

    async def call_until_stopped(self, number: int) -> None:
        """Send one call after the other; `number` chooses text and tenant."""
        while not self._stopped:
            try:
                self.receipts.append(await embed(self._stack, number, common_pb2.PRIORITY_LOW))
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise
                self.refused += 1
                await asyncio.sleep(PAUSE_AFTER_REFUSAL_S)

    def stop(self) -> None:
        """Let every caller return after its call in flight."""
        self._stopped = True


async def embed(stack: Stack, number: int, priority: common_pb2.Priority) -> common_pb2.Receipt:
    """Embed one text of the workload past the cache; return the receipt."""
    options = router_pb2.CallOptions(priority=priority, cache=router_pb2.CachePolicy(bypass=True))
    request = router_pb2.EmbedRequest(options=options, texts=[TEXTS[number % len(TEXTS)]])
    tenant = AGENTS[number % len(AGENTS)].tenant
    answer = await stack.router.Embed(request, metadata=stack.metadata(tenant), timeout=DEADLINE_S)
    receipt: common_pb2.Receipt = answer.receipt
    return receipt


def _median_wait_ms(receipts: Sequence[common_pb2.Receipt]) -> float:
    return statistics.median(receipt.batch.queued_ms for receipt in receipts)


def _show(
    receipts_by_priority: dict[str, list[common_pb2.Receipt]], refused: int, console: Console
) -> None:
    table = Table("priority", "served", "wait p50 ms", "wait p99 ms", "mean rows in its batch")
    for name, receipts in receipts_by_priority.items():
        waits_ms = sorted(receipt.batch.queued_ms for receipt in receipts)
        p99_ms = waits_ms[int(0.99 * (len(waits_ms) - 1))]
        mean_rows = statistics.mean(receipt.batch.batch_size for receipt in receipts)
        cells = (statistics.median(waits_ms), p99_ms, mean_rows)
        table.add_row(name, str(len(receipts)), *(f"{cell:.1f}" for cell in cells))
    console.print(table)
    console.print(
        f"{LOW_PRIORITY_CALLERS} low-priority callers without a pause; the router refused "
        f"{refused} of their calls"
    )
