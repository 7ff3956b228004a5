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
            grown[name] = await _growth_mb(stack, attack, address)
            say(f"{name}: {grown[name]:.1f} MB")
    return grown


async def _growth_mb(stack: Stack, attack: Attack, address: str) -> float:
    processes = [
        psutil.Process(child.pid)
        for name in SERVICES
        if (child := stack.supervisor.child(name)) is not None
    ]
    before = [each.memory_info().rss for each in processes]
    peaks = list(before)
    work = asyncio.ensure_future(attack(address))
    while not work.done():
        await asyncio.wait([work], timeout=0.2)
        peaks = [
            max(peak, each.memory_info().rss) for peak, each in zip(peaks, processes, strict=True)
        ]
    work.result()
    await asyncio.sleep(SETTLED_S)
    return max(peak - start for peak, start in zip(peaks, before, strict=True)) / 1e6
