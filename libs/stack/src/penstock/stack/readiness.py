"""Whether a program answers: gRPC health for services, PING for stores, any reply for a page."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import grpc
import redis.asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from penstock.rpc.peers.stream import open_channel
from penstock.service.store import reachable
from penstock.stack.process import Program

PROBE_TIMEOUT_S = 1.0
STORE_SCHEME = "redis+"
"""Stands before a store's own URL in `Program.address`."""


async def is_ready(program: Program) -> bool:
    """Whether the program serves at its address."""
    if program.address.startswith(STORE_SCHEME):
        return await _store_answers(program.address.removeprefix(STORE_SCHEME))
    if program.address.startswith("http://"):
        return await _page_answers(program.address)
    return await _service_is_healthy(program.address)


async def _store_answers(url: str) -> bool:
    client = redis.asyncio.Redis.from_url(url)
    try:
        return await reachable(client)
    finally:
        await client.aclose()


async def _service_is_healthy(address: str) -> bool:
    async with open_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=PROBE_TIMEOUT_S)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def _page_answers(url: str) -> bool:
    parts = urlsplit(url)
    request = f"HEAD / HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            writer.write(request.encode())
            answered = (await reader.readline()).startswith(b"HTTP/")
            writer.close()
            return answered
    except (OSError, TimeoutError):
        return False
