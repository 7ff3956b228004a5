"""The ledger's store stops for a moment, again and again, while callers with 10 s ask for every
task kind on every path: how many of them get an error.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from penstock.api.common.v1 import common_pb2
from penstock.api.router.v1 import router_pb2
from penstock.bench.faults.all_kinds import REQUESTS, TEXT
from penstock.bench.faults.rig import MODEL, ROUTERS, STORE, Rig, running

TENANTS = tuple(f"tenant-{number}" for number in range(6))
"""Each with four priorities has paths of its own, for each of which leases are granted."""
PRIORITIES = (
    common_pb2.PRIORITY_LOW,
    common_pb2.PRIORITY_NORMAL,
    common_pb2.PRIORITY_HIGH,
    common_pb2.PRIORITY_CRITICAL,
)
RULES = [
    {
        "name": "tenant-hour",
        "kind": "budget",
        "counts": "tokens",
        "limit": 10**9,
        "window": "hour",
    },
    {
        "name": "tenant-rate",
        "kind": "rate",
        "counts": "requests",
        "limit": 10**6,
        "window": "minute",
        "store_loss": "closed",
    },
]
CALLERS, TIMEOUT_S, PAUSE_S = 24, 10.0, 0.05


@dataclass
class Tally:
    """Answers and errors of callers."""

    answered: int = 0
    errors: list[str] = field(default_factory=list)
    longest_s: float = 0.0


async def measure(folder: Path, stall_s: float, stalls: int) -> Tally:
    """Calls while the store stops `stalls` times for `stall_s`, as long as it works in between."""
    tally = Tally()
    async with running(folder, TENANTS, RULES) as rig:
        await _call(rig, tally, 0)
        assert not tally.errors, tally.errors
        numbers = itertools.count(1)
        is_over = asyncio.Event()

        async def caller() -> None:
            while not is_over.is_set():
                await _call(rig, tally, next(numbers))
                await asyncio.sleep(PAUSE_S)

        callers = [asyncio.create_task(caller()) for _ in range(CALLERS)]
        for _ in range(stalls):
            await rig.stop_for(STORE, stall_s)
            await asyncio.sleep(stall_s + 0.5)
        is_over.set()
        await asyncio.gather(*callers)
    return tally


async def _call(rig: Rig, tally: Tally, number: int) -> None:
    """One call: kinds, tenants, priorities and routers in turn."""
    method, build = list(REQUESTS.items())[number % len(REQUESTS)]
    tenant = TENANTS[number // len(REQUESTS) % len(TENANTS)]
    options = router_pb2.CallOptions(
        model=MODEL, priority=PRIORITIES[number // 7 % len(PRIORITIES)]
    )
    stub = rig.routers[ROUTERS[number % len(ROUTERS)]]
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    try:
        await getattr(stub, method)(
            build(f"{TEXT} {number}", options), metadata=rig.metadata(tenant), timeout=TIMEOUT_S
        )
    except grpc.aio.AioRpcError as error:
        tally.errors.append(f"{method}: {error.code().name} {error.details()}")
        return
    tally.answered += 1
    tally.longest_s = max(tally.longest_s, loop.time() - began_s)
