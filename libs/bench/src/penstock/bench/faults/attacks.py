"""What one API key can try against the router's public port, each far beyond its bound."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import grpc
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.api.router.v1 import router_pb2_grpc
from penstock.bench.faults.whole_stack import KEY
from penstock.rpc.peers.stream import open_channel

METADATA = (("authorization", f"Bearer {KEY}"),)
LARGE = "x" * 3_500_000
"""A text of nearly the largest size of a message."""
TIMEOUT_S = 20.0
HELD_S = 1.0
Attack = Callable[[str], Awaitable[None]]


def attacks_of(scale: float) -> Mapping[str, Attack]:
    """Every attack by its name; `scale` makes them smaller."""

    def times(count: int) -> int:
        return max(2, round(count * scale))

    return {
        "large requests at once": lambda address: _large_requests(address, times(100)),
        "large items at once": lambda address: _large_items(address, times(100)),
        "calls at once": lambda address: _calls(address, times(4_000)),
        "results not taken": lambda address: _results_not_taken(address, times(8_000)),
        "names of models": lambda address: _names(address, times(5_000), "model"),
        "names of runs": lambda address: _names(address, times(5_000), "run_id"),
        "sessions": lambda address: _names(address, times(5_000), "affinity_key"),
        "item streams": lambda address: _streams(address, times(500)),
        "watchers of a job": lambda address: _watchers(address, times(500)),
        "connections": lambda address: _connections(address, times(300)),
        "jobs": lambda address: _jobs(address, times(3_000)),
    }


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
        await asyncio.sleep(HELD_S)
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


async def _large_items(address: str, count: int) -> None:
    """Large requests on one item stream."""
    payload = pb.EmbedRequest(texts=[LARGE]).SerializeToString()
    context = common_pb2.CallContext(remaining_ms=10_000)
    async with open_channel(address) as channel:
        stream = _exchange(channel)
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await stream.write(pb.ExchangeRequest(credits=count))
            for number in range(1, count + 1):
                item = common_pb2.Item(id=number, method="Embed", context=context, payload=payload)
                await stream.write(pb.ExchangeRequest(items=[item]))
        stream.cancel()


async def _jobs(address: str, count: int) -> None:
    """Jobs, 50 at a time, of which a key may have 2,000 that have not ended."""
    task = inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=["hello " * 500]))
    numbers = iter(range(count))

    async def caller(stub: Any) -> None:
        for _ in numbers:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await stub.SubmitJob(
                    pb.SubmitJobRequest(task=task), metadata=METADATA, timeout=TIMEOUT_S
                )

    async with _stub(address) as stub:
        await asyncio.gather(*(caller(stub) for _ in range(50)))


async def _watchers(address: str, count: int) -> None:
    """Watchers of one job that do not read."""
    task = inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=["hello"]))
    async with _stub(address) as stub:
        submit = pb.SubmitJobRequest(task=task, idempotency_token="watched")
        answer = await stub.SubmitJob(submit, metadata=METADATA, timeout=TIMEOUT_S)
        request = pb.WatchJobRequest(id=answer.job.id)
        watching = [
            stub.WatchJob(request, metadata=METADATA, timeout=TIMEOUT_S) for _ in range(count)
        ]
        await asyncio.sleep(HELD_S)
        for each in watching:
            each.cancel()
