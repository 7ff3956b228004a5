"""Whether a program answers: gRPC health for services, PING for stores, any reply for a page."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import grpc
import redis.asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from penstock.rpc.peers.stream import open_channel
from penstock.service.store import reachable
from penstock.service.tls_files import TlsSource, client_context
from penstock.stack.process import Program

PROBE_TIMEOUT_S = 1.0
STORE_SCHEME = "redis+"
"""Stands before a store's own URL in `Program.address`."""


async def is_ready(program: Program, tls: TlsSource | None = None) -> bool:
    """Whether the program serves at its address; `tls` as in `open_channel`."""
    if program.address.startswith(STORE_SCHEME):
        return await _store_answers(program.address.removeprefix(STORE_SCHEME))
    if program.address.startswith(("http://", "https://")):
        return await _page_answers(program.address, tls)
    return await _service_is_healthy(program.address, tls)


async def _store_answers(url: str) -> bool:
    client = redis.asyncio.Redis.from_url(url)
    try:
        return await reachable(client)
    finally:
        await client.aclose()


async def _service_is_healthy(address: str, tls: TlsSource | None) -> bool:
    async with open_channel(address, tls) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=PROBE_TIMEOUT_S)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def _page_answers(url: str, tls: TlsSource | None) -> bool:
    parts = urlsplit(url)
    request = f"HEAD / HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(
                parts.hostname, parts.port, ssl=client_context(tls.files) if tls else None
            )
            writer.write(request.encode())
            answered = (await reader.readline()).startswith(b"HTTP/")
            writer.close()
            return answered
    except (OSError, TimeoutError):
        return False
