"""The journeys through all processes: an `Embed`, a `GenerateStream`, and a lease.

The stack is the one of `make up`, on free ports, with an upstream that is scripted. The lease is
what an `Embed` that needs one opens, beyond an `Embed` whose lease is held.
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
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.bench.reading.traces.journey import (
    Entered,
    Journey,
    Recording,
    build_journey,
    entered_in_all,
    entered_in_any,
    without_read,
)
from penstock.bench.reading.traces.recording import Recorders
from penstock.bench.reading.traces.stacks import CALLERS, StackInputs, run_whole_stack
from penstock.stack.stack import Stack
from penstock.testkit.upstream import ScriptedUpstream

EMBEDDING_MODEL = "all-MiniLM-L6-v2"
CHAT_MODEL = "reading-chat"
UPSTREAM_KEY = "reading"
WARM_CALLS = 12
RECORDED_AFTER_S = 0.25
"""Recording goes on for this time after the answer, to see what follows it, such as storing it in
the cache and settling its hold.
"""
PAUSE_S = 0.3
"""Pause before a recording, so that what follows the previous answer has ended."""
TIMEOUT_S = 20.0
NORMAL_PRIORITY = "PRIORITY_NORMAL"
OTHER_PRIORITIES = tuple(
    name for name, number in common_pb2.Priority.items() if number and name != NORMAL_PRIORITY
)
"""Priorities with leases of their own."""


@dataclass(frozen=True)
class PathJourneys:
    """The journeys, and `background`: what was left out because every idle window enters it."""

    embed: Journey
    stream: Journey
    lease: Journey
    background: Sequence[str]


async def follow(inputs: StackInputs, repeats: int) -> PathJourneys:
    """Start a stack, and record each call `repeats` times."""
    with tempfile.TemporaryDirectory(prefix="reading-key-") as folder:
        key = Path(folder) / "key"
        key.write_text(UPSTREAM_KEY)
        async with (
            ScriptedUpstream(key=UPSTREAM_KEY) as upstream,
            run_whole_stack(inputs, _configuration(upstream.url, key)) as (stack, recorders),
        ):
            return await _follow(
                inputs, [Caller(stack, caller) for caller in CALLERS], recorders, repeats
            )


async def _follow(
    inputs: StackInputs, callers: Sequence[Caller], recorders: Recorders, repeats: int
) -> PathJourneys:
    for caller in callers:
        await caller.warm_up()
    caller = callers[0]
    embeds = [await _record(recorders, caller.embed) for _ in range(repeats)]
    idle_s = statistics.median(one.seconds for one in embeds)
    idle = [await _record(recorders, lambda: asyncio.sleep(idle_s)) for _ in range(repeats)]
    streams = [await _record(recorders, caller.stream) for _ in range(repeats)]
    leases = [
        await _record(recorders, caller.embed_at(name))
        for caller in callers
        for name in OTHER_PRIORITIES
    ]
    # What follows any answer is no part of a lease, even where it happens to come before this one.
    lease = without_read(entered_in_all(leases), entered_in_all(embeds)) - entered_in_all(
        embeds, answered=False
    )
    return PathJourneys(
        _from_caller("Embed", embeds, idle, inputs),
        _from_caller("GenerateStream", streams, idle, inputs),
        build_journey("Lease", lease, leases[0], inputs.tree),
        sorted(f"{one.program}: {one.name}" for one in entered_in_all(idle)),
    )


async def _record(recorders: Recorders, action: Callable[[], Awaitable[object]]) -> Recording:
    await asyncio.sleep(PAUSE_S)
    recording, _ = await recorders.record(action, RECORDED_AFTER_S)
    return recording


def _from_caller(
    title: str, recordings: Sequence[Recording], idle: Sequence[Recording], inputs: StackInputs
) -> Journey:
    entered = entered_in_all(recordings) - entered_in_all(idle)
    later: frozenset[Entered] = entered_in_all(recordings, answered=False) - entered_in_any(idle)
    return build_journey(title, entered, recordings[0], inputs.tree, later)


class Caller:
    """One caller, who sends another text with each call, so that none is a hit."""

    def __init__(self, stack: Stack, name: str) -> None:
        self._stack = stack
        self._name = name
        self._numbers = itertools.count()
        self._call_options: dict[str, Any] = {
            "metadata": stack.metadata(name),
            "timeout": TIMEOUT_S,
        }

    async def embed(self) -> None:
        """An `Embed` of the usual priority."""
        await self.embed_at(NORMAL_PRIORITY)()

    def embed_at(self, priority: str) -> Callable[[], Awaitable[None]]:
        """An `Embed` of a priority: the first one of each needs a lease."""

        async def call() -> None:
            options = router_pb2.CallOptions(model=EMBEDDING_MODEL, priority=priority)
            texts = [f"order number {next(self._numbers)} of {self._name}"]
            await self._stack.router.Embed(
                router_pb2.EmbedRequest(options=options, texts=texts), **self._call_options
            )

        return call

    async def stream(self) -> None:
        """A `GenerateStream` whose answer comes word by word from the upstream."""
        request = router_pb2.GenerateStreamRequest(options=router_pb2.CallOptions(model=CHAT_MODEL))
        request.task.messages.add(
            role=inference_pb2.ROLE_USER, content=f"what holds order {next(self._numbers)}"
        )
        async for _ in self._stack.router.GenerateStream(request, **self._call_options):
            pass

    async def warm_up(self) -> None:
        """Send a few calls of each kind, so that connections and leases exist afterwards."""
        await self._stack.wait_for_instances(
            EMBEDDING_MODEL, self._stack.plan.instances, self._name
        )
        await self._stack.wait_for_instances(CHAT_MODEL, 1, self._name)
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
        "models": [{"name": CHAT_MODEL}],
    }
    return {
        "limits": {"rules": [budget]},
        "prices": {
            "models": [
                {"name": EMBEDDING_MODEL, "input_microusd_per_mtok": 20_000},
                {"name": CHAT_MODEL, **chat},
            ]
        },
        "upstreams": {"servers": [server]},
    }
