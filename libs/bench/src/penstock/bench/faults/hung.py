"""What a stopped process adds to calls: each process beside the router that a call may meet is
stopped (SIGSTOP) in turn, under calls at a fixed rate, and goes on afterwards.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from penstock.api.router.v1 import router_pb2 as pb
from penstock.bench.faults.whole_stack import PER_S, TENANT, whole_stack
from penstock.bench.harness.load import quantile
from penstock.bench.harness.progress import say
from penstock.stack.stack import Stack

PEERS = ("cache", "batcher", "telemetry", "inference-1")
SECONDS = 12.0
REST_S = 3.0
"""After a process goes on, before the next one is stopped."""


@dataclass
class Latencies:
    """Of calls at a fixed rate, in milliseconds, from the time at which each was due."""

    ms: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Hung:
    """What was measured."""

    before: Latencies
    during: dict[str, Latencies]
    """By the process that was stopped."""

    @property
    def errors(self) -> int:
        """Calls that failed."""
        return sum(len(each.errors) for each in (self.before, *self.during.values()))

    @property
    def calls(self) -> int:
        """All calls."""
        return sum(len(each.ms) for each in (self.before, *self.during.values()))


async def measure(folder: Path, seconds: float = SECONDS) -> Hung:
    """Stop each process in turn; half of the texts are new, half come again."""
    numbers = itertools.count()
    async with whole_stack(folder, "processes") as stack:
        await _calls(stack, numbers, 2.0)
        before = await _calls(stack, numbers, seconds)
        during: dict[str, Latencies] = {}
        for name in PEERS:
            child = stack.supervisor.child(name)
            assert child is not None
            os.kill(child.pid, signal.SIGSTOP)
            try:
                during[name] = await _calls(stack, numbers, seconds)
            finally:
                os.kill(child.pid, signal.SIGCONT)
            p99_ms = quantile(during[name].ms, 0.99)
            say(f"{name} stopped: p99 {p99_ms:.0f} ms, {during[name].errors[:2]}")
            await asyncio.sleep(REST_S)
    return Hung(before, during)


async def _calls(stack: Stack, numbers: itertools.count[int], seconds: float) -> Latencies:
    """Open loop: a call is due every 1 / PER_S seconds, whatever became of those before it."""
    measured, began_s = Latencies(), time.perf_counter()
    calls = []
    for due_s in (began_s + number / PER_S for number in range(round(seconds * PER_S))):
        await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
        calls.append(asyncio.create_task(_call(stack, next(numbers), due_s, measured)))
    await asyncio.gather(*calls)
    return measured


async def _call(stack: Stack, number: int, due_s: float, measured: Latencies) -> None:
    text = f"text {number}" if number % 2 else f"text again {number % 20}"
    try:
        request = pb.EmbedRequest(texts=[text])
        await stack.router.Embed(request, metadata=stack.metadata(TENANT), timeout=10)
    except Exception as error:
        measured.errors.append(str(error))
    measured.ms.append((time.perf_counter() - due_s) * 1e3)
