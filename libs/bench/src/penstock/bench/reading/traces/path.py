"""The journeys through all processes: an `Embed`, a `GenerateStream`, and a lease.

The stack is the one of `make up`, on free ports, with an upstream that is scripted. The lease is
what an `Embed` opens that needs one, beyond an `Embed` whose lease is held.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.api.common.v1 import common_pb2
from penstock.api.router.v1 import router_pb2
from penstock.bench.reading.traces.journey import (
    Entered,
    Journey,
    Recording,
    beyond,
    entered_always,
    entered_ever,
    journey,
)
from penstock.bench.reading.traces.recording import Recorders
from penstock.bench.reading.traces.stacks import CALLERS, Ground, whole
from penstock.stack.stack import Stack
from penstock.testkit.upstream import ScriptedUpstream

EMBEDDER = "all-MiniLM-L6-v2"
CHAT = "reading-chat"
UPSTREAM_KEY = "reading"
WARM_CALLS = 12
AFTER_S = 0.25
"""Recorded after the answer: what follows it (a deposit, a settlement) has begun by then."""
PAUSE_S = 0.3
"""Before a recording, so that what follows the answer before it is over."""
TIMEOUT_S = 20.0
NORMAL = "PRIORITY_NORMAL"
OTHERS = tuple(name for name, number in common_pb2.Priority.items() if number and name != NORMAL)
"""Priorities with leases of their own."""


@dataclass(frozen=True)
class PathJourneys:
    """The journeys, and what was left out because every idle window enters it."""

    embed: Journey
    stream: Journey
    lease: Journey
    background: Sequence[str]


async def follow(ground: Ground, repeats: int) -> PathJourneys:
    """Start a stack, and record each call `repeats` times."""
    with tempfile.TemporaryDirectory(prefix="reading-key-") as folder:
        key = Path(folder) / "key"
        key.write_text(UPSTREAM_KEY)
        async with (
            ScriptedUpstream(key=UPSTREAM_KEY) as upstream,
            whole(ground, _configuration(upstream.url, key)) as (stack, recorders),
        ):
            return await _follow(
                ground, [Calls(stack, caller) for caller in CALLERS], recorders, repeats
            )


async def _follow(
    ground: Ground, callers: Sequence[Calls], recorders: Recorders, repeats: int
) -> PathJourneys:
    for caller in callers:
        await caller.warm()
    calls = callers[0]
    embeds = [await _one(recorders, calls.embed) for _ in range(repeats)]
    idle_s = statistics.median(one.seconds for one in embeds)
    idle = [await _one(recorders, lambda: asyncio.sleep(idle_s)) for _ in range(repeats)]
    streams = [await _one(recorders, calls.stream) for _ in range(repeats)]
    leases = [await _one(recorders, caller.embed_at(name)) for caller in callers for name in OTHERS]
    # What follows every answer is no part of a lease where it happens to come before this one.
    lease = beyond(entered_always(leases), entered_always(embeds)) - entered_always(
        embeds, answered=False
    )
    return PathJourneys(
        _from_caller("Embed", embeds, idle, ground),
        _from_caller("GenerateStream", streams, idle, ground),
        journey("Lease", lease, leases[0], ground.tree),
        sorted(f"{one.program}: {one.name}" for one in entered_always(idle)),
    )


async def _one(recorders: Recorders, act: Callable[[], Awaitable[object]]) -> Recording:
    await asyncio.sleep(PAUSE_S)
    recording, _ = await recorders.record(act, AFTER_S)
    return recording


def _from_caller(
    title: str, recordings: Sequence[Recording], idle: Sequence[Recording], ground: Ground
) -> Journey:
    entered = entered_always(recordings) - entered_always(idle)
    later: frozenset[Entered] = entered_always(recordings, answered=False) - entered_ever(idle)
    return journey(title, entered, recordings[0], ground.tree, later)


class Calls:
    """One caller's calls, each with a text of its own, so that none is a hit."""

    def __init__(self, stack: Stack, caller: str) -> None:
        self._stack, self._caller, self._numbers = stack, caller, itertools.count()
        self._how: dict[str, Any] = {"metadata": stack.metadata(caller), "timeout": TIMEOUT_S}

    async def embed(self) -> None:
        """An `Embed` of the usual priority."""
        await self.embed_at(NORMAL)()

    def embed_at(self, priority: str) -> Callable[[], Awaitable[None]]:
        """An `Embed` of a priority: the first one of each needs a lease."""

        async def call() -> None:
            options = router_pb2.CallOptions(model=EMBEDDER, priority=priority)
            texts = [f"order number {next(self._numbers)} of {self._caller}"]
            await self._stack.router.Embed(
                router_pb2.EmbedRequest(options=options, texts=texts), **self._how
            )

        return call

    async def stream(self) -> None:
        """A `GenerateStream` whose answer comes word by word from the upstream."""
        request = router_pb2.GenerateStreamRequest(options=router_pb2.CallOptions(model=CHAT))
        request.task.messages.add(role="user", content=f"what holds order {next(self._numbers)}")
        async for _ in self._stack.router.GenerateStream(request, **self._how):
            pass

    async def warm(self) -> None:
        """A few calls of each kind: connections, leases and imports are there afterwards."""
        await self._stack.wait_for_instances(EMBEDDER, self._stack.plan.instances, self._caller)
        await self._stack.wait_for_instances(CHAT, 1, self._caller)
        for call in (self.embed, self.stream):
            for _ in range(WARM_CALLS):
                await call()


def _configuration(upstream: str, key: Path) -> dict[str, object]:
    budget = {
        "name": "hour",
        "kind": "budget",
        "counts": "tokens",
        "limit": 10**9,
        "window": "hour",
    }
    chat = {"input_microusd_per_mtok": 3_000_000, "output_microusd_per_mtok": 15_000_000}
    server = {
        "name": "scripted",
        "base_url": upstream,
        "key_file": str(key),
        "models": [{"name": CHAT}],
    }
    return {
        "limits": {"rules": [budget]},
        "prices": {
            "models": [
                {"name": EMBEDDER, "input_microusd_per_mtok": 20_000},
                {"name": CHAT, **chat},
            ]
        },
        "upstreams": {"servers": [server]},
    }
