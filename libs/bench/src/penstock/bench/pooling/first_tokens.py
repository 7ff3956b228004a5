"""What the path adds to the first token of a stream, and how soon a cancel reaches the upstream."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from penstock.api.inference.v1 import inference_pb2, inference_pb2_grpc
from penstock.api.router.v1 import router_pb2, router_pb2_grpc
from penstock.bench.harness.echo import TOKEN
from penstock.bench.harness.processes import supervised
from penstock.bench.hop.benchmark import REQUEST
from penstock.bench.pooling.connections import MODEL, chat_task
from penstock.inference_upstream.api.inference_service import UpstreamServicer
from penstock.inference_upstream.settings import Upstream
from penstock.inference_upstream.transport.client import Client
from penstock.otel.telemetry import NO_TELEMETRY
from penstock.rpc.call import Call
from penstock.rpc.peers.stream import open_channel
from penstock.service.clock import SystemClock
from penstock.stack import ports
from penstock.stack.configuration import api_key
from penstock.stack.plan import STANDALONE, StackPlan
from penstock.stack.stack import Stack
from penstock.testkit.upstream import ScriptedAnswer, ScriptedUpstream

TENANT = "bench"
KEY = "psk-pooling"
REST_S = 0.002
WARM_UP_CALLS = 10
CANCELS = 20
SLOW_WORD_S = 5.0

PATH_REQUEST = router_pb2.GenerateStreamRequest(
    task=chat_task().generate,
    options=router_pb2.CallOptions(model=MODEL, cache=router_pb2.CachePolicy(bypass=True)),
)

Timed = Callable[[], Awaitable[float | object]]
"""Makes a call; returns the moment to measure to, or anything else for its end."""


class Turn(NamedTuple):
    """Milliseconds of a bare hop, and to the first token directly and by the whole path, of three
    calls in a row.
    """

    hop_ms: float
    direct_ms: float
    path_ms: float


@dataclass(frozen=True)
class FirstTokens:
    """What was measured.

    Attributes:
        rounds: the calls, in turns.
        cancels_ms: from a caller's cancel until the upstream saw its connection closed.
    """

    rounds: Sequence[Turn]
    cancels_ms: Sequence[float]


def figures(rounds: Sequence[Turn]) -> dict[str, float]:
    """Medians, and what the path adds to the first token, in bare hops."""
    hop_ms, direct_ms, path_ms = (statistics.median(each) for each in zip(*rounds, strict=True))
    return {
        "first_token_added_hops": (path_ms - direct_ms) / hop_ms,
        "bare_hop_p50_ms": hop_ms,
        "first_token_direct_p50_ms": direct_ms,
        "first_token_path_p50_ms": path_ms,
    }


async def measure(folder: Path, bare_address: str, calls: int) -> FirstTokens:
    """Measure against a scripted upstream without delay."""
    async with (
        ScriptedUpstream(lambda _: ScriptedAnswer("one two three four")) as upstream,
        _path(folder, upstream.url) as stack,
    ):
        rounds = await _rounds(stack, upstream, bare_address, calls)
        upstream.per_word_s = SLOW_WORD_S
        cancels_ms = [await _cancel_ms(_stream(stack), upstream) for _ in range(CANCELS)]
    return FirstTokens(rounds, cancels_ms)


async def _rounds(
    stack: Stack, upstream: ScriptedUpstream, bare_address: str, calls: int
) -> list[Turn]:
    """A bare hop, the direct first token and the path's, in turns."""
    section = Upstream.model_validate(
        {"name": "up", "base_url": upstream.url, "models": [{"name": MODEL}]}
    )
    client = Client(section, NO_TELEMETRY)
    service = UpstreamServicer(client, SystemClock(), NO_TELEMETRY)
    request = inference_pb2.ComputeStreamRequest(model=MODEL, task=chat_task())
    async with open_channel(bare_address) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        sides: tuple[Timed, ...] = (
            lambda: stub.Compute(REQUEST),
            lambda: _first_piece_s(service.ComputeStream(request, Call())),
            lambda: _first_piece_s(_stream(stack)),
        )
        took_ms = await _in_turns(sides, calls)
    await client.close()
    return [Turn(*row) for row in zip(*took_ms, strict=True)]


def _stream(stack: Stack) -> Any:
    """A streamed generation through the whole path, past the cache."""
    return stack.router.GenerateStream(PATH_REQUEST, metadata=stack.metadata(TENANT))


async def _in_turns(sides: Sequence[Timed], calls: int) -> list[list[float]]:
    """Milliseconds of each side's calls.

    All sides rest for the same time before a call: what follows an answer needs that time, and a
    core that has slept wakes later, so a hop without a rest would be shorter than those of the
    path.
    """
    took_ms: list[list[float]] = [[] for _ in sides]
    for number in range(calls + WARM_UP_CALLS):
        for side, times in zip(sides, took_ms, strict=True):
            await asyncio.sleep(REST_S)
            began_s = time.perf_counter()
            moment = await side()
            ended_s = moment if isinstance(moment, float) else time.perf_counter()
            if number >= WARM_UP_CALLS:
                times.append((ended_s - began_s) * 1e3)
    return took_ms


async def _cancel_ms(stream: Any, upstream: ScriptedUpstream) -> float:
    """Milliseconds from a cancel after the first piece until the upstream sees it."""
    upstream.caller_left.clear()
    await anext(aiter(stream))
    began_s = time.perf_counter()
    stream.cancel()
    await upstream.caller_left.wait()
    return (time.perf_counter() - began_s) * 1e3


async def _first_piece_s(stream: AsyncIterator[object]) -> float:
    """The moment of a stream's first piece; the rest is read too, as a caller would."""
    moment_s = 0.0
    async for _ in stream:
        moment_s = moment_s or time.perf_counter()
    return moment_s


@contextlib.asynccontextmanager
async def _path(folder: Path, url: str) -> AsyncIterator[Stack]:
    """Router, batcher and the upstream service as processes."""
    config = folder / "penstock.yaml"
    server = {"name": "up", "base_url": url, "models": [{"name": MODEL}]}
    content = {"keys": {"api": [api_key(TENANT, KEY)]}, "upstreams": {"servers": [server]}}
    config.write_text(yaml.safe_dump(content))
    plan = StackPlan(ports.free(), folder, folder, config, TOKEN, profile="production")
    async with supervised() as supervisor:
        await supervisor.start(plan.router_and_batcher())
        await supervisor.start((plan.upstream("up", **STANDALONE),))
        async with open_channel(plan.addresses["router"]) as channel:
            stub = router_pb2_grpc.RouterServiceStub(channel)
            stack = Stack(plan, supervisor, stub, {TENANT: KEY})
            await stack.wait_for_instances(MODEL, 1, TENANT)
            yield stack
