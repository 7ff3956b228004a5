"""A rolling restart under load: every process of a stack of two cells in turn, and the callers are
clients of the library with its default retries.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path

from penstock.bench.faults.whole_stack import KEY, PER_S, whole_stack
from penstock.bench.harness.progress import say
from penstock.client import Penstock, PenstockError
from penstock.stack.stack import Stack

CLIENTS = 8
REST_S = 2.0
"""Before, between and after restarts."""
RESTARTED = ("cell-1", "cell-2", "inference-1", "inference-2", "beside")


@dataclass
class Restarts:
    """What was measured."""

    answered: int = 0
    errors: list[str] = field(default_factory=list)
    restarted: list[str] = field(default_factory=list)


async def measure(folder: Path) -> Restarts:
    """Restart each process once while calls go on."""
    measured = Restarts()
    async with whole_stack(folder, "cell", workers=2) as stack:
        stop = asyncio.Event()
        callers = [
            asyncio.create_task(_call_until(stop, stack.addresses["router"], number, measured))
            for number in range(CLIENTS)
        ]
        await asyncio.sleep(REST_S)
        for name in RESTARTED:
            await _restart(stack, name)
            measured.restarted.append(name)
            say(f"{name} restarted: {measured.answered} answered, {measured.errors[:2]}")
            await asyncio.sleep(REST_S)
        stop.set()
        await asyncio.gather(*callers)
    return measured


async def _restart(stack: Stack, name: str) -> None:
    """As an orchestrator does: SIGTERM, wait for the end, start, wait until it is ready."""
    child = stack.supervisor.child(name)
    assert child is not None
    await stack.supervisor.stop_one(name)
    await stack.supervisor.start((child.program,))


async def _call_until(stop: asyncio.Event, address: str, number: int, measured: Restarts) -> None:
    """One client's calls, CLIENTS / PER_S seconds apart."""
    apart_s = CLIENTS / PER_S
    async with Penstock(address, KEY) as client:
        due_s, count = time.monotonic() + number / PER_S, 0
        while not stop.is_set():
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            due_s, count = due_s + apart_s, count + 1
            try:
                await client.embed([f"client {number}, call {count}"])
                measured.answered += 1
            except PenstockError as error:
                measured.errors.append(f"{error.code}: {error}")
