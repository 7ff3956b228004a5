"""The two gateways under load, in turns: answers a second, latencies, what is added."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import grpc
import orjson
from penstock.api.inference.v1 import inference_pb2_grpc
from penstock.bench.edge.http_client import HttpClient
from penstock.bench.edge.penstock_side import PenstockSide
from penstock.bench.edge.provider import SLOW, TEXT_CHUNK, Provider
from penstock.bench.edge.requests import PATH, chat_body, chat_request, odd_bodies
from penstock.bench.harness.load import LoadResult, Send, closed_loop, quantile
from penstock.bench.hop.benchmark import REQUEST
from penstock.cli.load.open_loop import due_times_s, run_open_loop
from penstock.service.clock import SystemClock

CALLERS = 16
OPEN_RATE = 100.0
MAX_IN_FLIGHT = 1_000
DISCONNECTS, QUICK_DISCONNECTS = 30, 3
ODD_BODIES, QUICK_ODD_BODIES = 200, 20
PARSED = 20_000
DISCONNECT_POLL_S = 0.001
RECEIPT_COMMENT = b": x-penstock-receipt "


class Side(NamedTuple):
    """Loads of one gateway in one round."""

    uncached: LoadResult
    cached: LoadResult


class Opened(NamedTuple):
    """Milliseconds under an open loop, by call."""

    added_p50: float
    added_p99: float
    echo_p50: float


class StreamCpu(NamedTuple):
    """CPU microseconds in one round."""

    streamed_call: float
    """Of a call that is answered by CHUNKS chunks."""
    whole_call: float
    """Of the same call answered whole."""
    json: float
    """To read the JSON of one chunk, in this process."""


_numbers = itertools.count()


def uncached(client: HttpClient) -> Send:
    """Sends a question that was never asked."""

    async def send(_: int) -> object:
        return await client.send(chat_request(client, f"What is {next(_numbers)} plus one?"))

    return send


def cached(client: HttpClient) -> Send:
    """Sends the same question each time."""
    request = chat_request(client, "What is the answer?")

    async def send(_: int) -> object:
        return await client.send(request)

    return send


async def load(client: HttpClient, seconds: float) -> Side:
    """Both loads, one after the other."""
    return Side(
        await closed_loop(uncached(client), CALLERS, seconds),
        await closed_loop(cached(client), CALLERS, seconds),
    )


async def opened(edge: HttpClient, direct: HttpClient, echo_address: str, seconds: float) -> Opened:
    """What the edge adds to calls that arrive 100 times a second, beside a bare gRPC echo's p50."""
    async with grpc.aio.insecure_channel(echo_address) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        echo = await _open_loop(lambda _: stub.Compute(REQUEST), seconds)
    by_edge = await _open_loop(uncached(edge), seconds)
    alone = await _open_loop(uncached(direct), seconds)
    return Opened(
        added_p50=quantile(by_edge, 0.5) - quantile(alone, 0.5),
        added_p99=quantile(by_edge, 0.99) - quantile(alone, 0.99),
        echo_p50=quantile(echo, 0.5),
    )


async def _open_loop(send: Callable[[int], Awaitable[object]], seconds: float) -> list[float]:
    """Milliseconds from the moment at which a call was due to its answer."""
    took_ms: list[float] = []

    async def timed(number: int) -> object:
        began_s = time.perf_counter()
        answer = await send(number)
        took_ms.append((time.perf_counter() - began_s) * 1e3)
        return answer

    due_s = due_times_s(OPEN_RATE, seconds, "poisson", random.Random(7))
    await run_open_loop(timed, due_s, SystemClock(), MAX_IN_FLIGHT)
    return took_ms


def streamed(client: HttpClient) -> Send:
    """Sends a question that was never asked, to be answered by a stream."""

    async def send(_: int) -> object:
        question = f"Tell {next(_numbers)} stories."
        return await client.send(chat_request(client, question, stream=True))

    return send


async def stream_cpu(side: PenstockSide, seconds: float) -> StreamCpu:
    """CPU of all of Penstock's processes for calls that are answered by streams, and for the same
    calls answered whole; beside them the time to read a chunk's JSON.
    """
    streamed_us = await _call_cpu_us(side, streamed(side.client), seconds)
    whole_us = await _call_cpu_us(side, uncached(side.client), seconds)
    return StreamCpu(streamed_us, whole_us, _json_cpu_us())


async def _call_cpu_us(side: PenstockSide, send: Send, seconds: float) -> float:
    began_s = side.cpu_s()
    result = await closed_loop(send, CALLERS, seconds)
    return (side.cpu_s() - began_s) * 1e6 / len(result.latencies_ms)


def _json_cpu_us() -> float:
    """CPU microseconds to read the JSON of one such chunk."""
    began_s = time.process_time()
    for _ in range(PARSED):
        orjson.loads(TEXT_CHUNK)
    return (time.process_time() - began_s) * 1e6 / PARSED


async def disconnects_ms(edge: HttpClient, provider: Provider, count: int) -> list[float]:
    """The times from a caller's leaving until the provider's connection is closed."""
    watcher = HttpClient(provider.address)
    return [await _disconnect_ms(edge, watcher) for _ in range(count)]


async def _disconnect_ms(edge: HttpClient, watcher: HttpClient) -> float:
    connection = await edge.connection()
    question = f"Tell story {next(_numbers)}."
    answer = connection.begin(chat_request(edge, question, model=SLOW, stream=True))
    await answer.first
    left_s = time.monotonic()
    connection.abort()
    while True:
        closed_s = float(await watcher.get("/last-close"))
        if closed_s >= left_s:
            return (closed_s - left_s) * 1e3
        await asyncio.sleep(DISCONNECT_POLL_S)


async def bytes_differing(edge: HttpClient, direct: HttpClient, count: int) -> int:
    """Requests that reach the provider other than they were sent, and answers that reach the caller
    other than the provider sent them, but for the comment with the receipt behind a stream.
    """
    differing = 0
    expected = await direct.send(direct.post(PATH, chat_body("What is one?")))
    events = await direct.send(direct.post(PATH, chat_body("What is one?", stream=True)))
    for body in odd_bodies(count):
        answer = await edge.send(edge.post(PATH, body))
        differing += answer != expected
        differing += await direct.get("/last-body") != body
    streamed = await edge.send(chat_request(edge, "Which bytes?", stream=True))
    return differing + (streamed.partition(RECEIPT_COMMENT)[0] != events)
