"""Whether a program answers: gRPC health for services, PING for Redis, any answer to HEAD for a
page.
"""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import grpc
import redis.asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from penstock.rpc.peers.stream import open_channel
from penstock.service.store import reachable
from penstock.stack.process import Program

PROBE_S = 1.0


async def is_ready(program: Program) -> bool:
    """True when the program serves."""
    if program.address.startswith("redis+"):
        client = redis.asyncio.Redis.from_url(program.address.removeprefix("redis+"))
        try:
            return await reachable(client)
        finally:
            await client.aclose()
    if program.address.startswith("http://"):
        return await _answers_http(program.address)
    async with open_channel(program.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=PROBE_S)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def _answers_http(address: str) -> bool:
    host = urlsplit(address)
    try:
        async with asyncio.timeout(PROBE_S):
            reader, writer = await asyncio.open_connection(host.hostname, host.port)
            writer.write(
                f"HEAD / HTTP/1.1\r\nHost: {host.netloc}\r\nConnection: close\r\n\r\n".encode()
            )
            answered = (await reader.readline()).startswith(b"HTTP/")
            writer.close()
            return answered
    except (OSError, TimeoutError):
        return False
