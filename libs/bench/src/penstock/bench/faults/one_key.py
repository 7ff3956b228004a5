"""How much memory one API key can make any service take: each row of `docs/bounds.md` that a caller
reaches by the public port is tried, far beyond its bound, and the largest growth counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
import psutil
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.api.router.v1 import router_pb2_grpc
from penstock.bench.faults.whole_stack import KEY, whole_stack
from penstock.bench.harness.progress import say
from penstock.rpc.peers.stream import open_channel
from penstock.stack.stack import Stack

SERVICES = ("router", "limiter", "cache", "batcher", "telemetry")
METADATA = (("authorization", f"Bearer {KEY}"),)
LARGE = "x" * 3_500_000
"""A text of nearly the largest size of a message."""
TIMEOUT_S = 20.0
SETTLED_S = 1.0
Attack = Callable[[str], Awaitable[None]]


async def measure(folder: Path, scale: float = 1.0) -> dict[str, float]:
    """Megabytes that the service which grew most grew, by attack; `scale` makes attacks smaller."""
    attacks = _attacks(scale)
    grown: dict[str, float] = {}
    async with whole_stack(folder, "processes") as stack:
        address = stack.addresses["router"]
        for attack in attacks.values():  # once for what is made once: pools, caches of stubs
            await attack(address)
        for name, attack in attacks.items():
            grown[name] = await _growth_mb(stack, attack, address)
            say(f"{name}: {grown[name]:.1f} MB")
    return grown


def _attacks(scale: float) -> Mapping[str, Attack]:
    def times(count: int) -> int:
        return max(2, round(count * scale))

    return {
        "large requests at once": lambda address: _large_requests(address, times(100)),
        "calls at once": lambda address: _calls(address, times(4_000)),
        "results not taken": lambda address: _results_not_taken(address, times(8_000)),
        "names of models": lambda address: _names(address, times(5_000), "model"),
        "names of runs": lambda address: _names(address, times(5_000), "run_id"),
        "sessions": lambda address: _names(address, times(5_000), "affinity_key"),
        "item streams": lambda address: _streams(address, times(500)),
        "connections": lambda address: _connections(address, times(300)),
    }


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


@contextlib.asynccontextmanager
async def _stub(address: str) -> AsyncIterator[router_pb2_grpc.RouterServiceStub]:
    async with open_channel(address) as channel:
        yield router_pb2_grpc.RouterServiceStub(channel)


async def _embed(stub: Any, request: pb.EmbedRequest) -> None:
    with contextlib.suppress(grpc.aio.AioRpcError):
        await stub.Embed(request, metadata=METADATA, timeout=TIMEOUT_S)


async def _large_requests(address: str, count: int) -> None:
    async with _stub(address) as stub:
        request = pb.EmbedRequest(texts=[LARGE])
        await asyncio.gather(*(_embed(stub, request) for _ in range(count)))


async def _calls(address: str, count: int) -> None:
    async with _stub(address) as stub:
        requests = (pb.EmbedRequest(texts=[f"call {number} " * 20]) for number in range(count))
        await asyncio.gather(*(_embed(stub, request) for request in requests))


async def _names(address: str, count: int, field: str) -> None:
    """Calls that each name something new; 100 at a time."""
    numbers = iter(range(count))

    async def caller(stub: Any) -> None:
        for number in numbers:
            options = pb.CallOptions()
            setattr(options, field, f"{field}-{number}-".ljust(100, "n"))
            await _embed(stub, pb.EmbedRequest(texts=["hello"], options=options))

    async with _stub(address) as stub:
        await asyncio.gather(*(caller(stub) for _ in range(100)))


def _exchange(channel: grpc.aio.Channel) -> Any:
    call = channel.stream_stream(
        "/penstock.api.router.v1.RouterService/Exchange",
        pb.ExchangeRequest.SerializeToString,
        pb.ExchangeResponse.FromString,
    )
    return call(metadata=METADATA, timeout=TIMEOUT_S)


async def _results_not_taken(address: str, count: int) -> None:
    """Items on one stream that grants no credits."""
    task = inference_pb2.GenerateTask()
    payload = pb.GenerateRequest(task=task).SerializeToString()
    context = common_pb2.CallContext(remaining_ms=10_000)
    async with open_channel(address) as channel:
        stream, numbers = _exchange(channel), itertools.count(1)
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            for _ in range(count // 100):
                items = [
                    common_pb2.Item(
                        id=next(numbers), method="Generate", context=context, payload=payload
                    )
                    for _ in range(100)
                ]
                await stream.write(pb.ExchangeRequest(items=items))
        stream.cancel()


async def _streams(address: str, count: int) -> None:
    async with open_channel(address) as channel:
        streams = [_exchange(channel) for _ in range(count)]
        for stream in streams:
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await stream.write(pb.ExchangeRequest(credits=1))
        await asyncio.sleep(SETTLED_S)
        for stream in streams:
            stream.cancel()


async def _connections(address: str, count: int) -> None:
    """Connections that each make one call and stay."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(address, options=options) for _ in range(count)]
    try:
        stubs = [router_pb2_grpc.RouterServiceStub(channel) for channel in channels]
        request = pb.EmbedRequest(texts=["hello"])
        for start in range(0, count, 50):
            await asyncio.gather(*(_embed(stub, request) for stub in stubs[start : start + 50]))
    finally:
        await asyncio.gather(*(channel.close() for channel in channels))
