"""How much memory one API key can make any service take: each row of `docs/bounds.md` that a caller
reaches by the public port is tried, far beyond its bound, and the largest growth counts.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import psutil
from penstock.bench.faults.attacks import Attack, attacks_of
from penstock.bench.faults.whole_stack import whole_stack
from penstock.bench.harness.progress import say
from penstock.stack.stack import Stack

SERVICES = ("router", "limiter", "cache", "batcher", "telemetry")
SETTLED_S = 1.0


async def measure(folder: Path, scale: float = 1.0) -> dict[str, float]:
    """Megabytes that the service which grew most grew, by attack; `scale` makes attacks smaller."""
    attacks = attacks_of(scale)
    grown: dict[str, float] = {}
    async with whole_stack(folder, "processes") as stack:
        address = stack.addresses["router"]
        for attack in attacks.values():  # once for what is made once: pools, caches of stubs
            await attack(address)
        for name, attack in attacks.items():
            by_service = await _growth_mb(stack, attack, address)
            grown[name] = max(by_service.values())
            say(f"{name}: " + ", ".join(f"{each} {mb:.1f}" for each, mb in by_service.items()))
    return grown


async def _growth_mb(stack: Stack, attack: Attack, address: str) -> dict[str, float]:
    """Megabytes by which each service grew at most."""
    processes = {
        name: psutil.Process(child.pid)
        for name in SERVICES
        if (child := stack.supervisor.child(name)) is not None
    }
    before = {name: each.memory_info().rss for name, each in processes.items()}
    peaks = dict(before)
    work = asyncio.ensure_future(attack(address))
    while not work.done():
        await asyncio.wait([work], timeout=0.2)
        for name, each in processes.items():
            peaks[name] = max(peaks[name], each.memory_info().rss)
    work.result()
    await asyncio.sleep(SETTLED_S)
    return {name: (peaks[name] - before[name]) / 1e6 for name in processes}
