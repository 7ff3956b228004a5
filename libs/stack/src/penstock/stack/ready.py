"""Whether a program answers: gRPC health for services, PING for Redis."""

from __future__ import annotations

import grpc
import redis.asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from penstock.core.hop import open_channel
from penstock.core.redis import reachable
from penstock.stack.process import Program

PROBE_S = 1.0


async def ready(program: Program) -> bool:
    """True when the program serves."""
    if program.address.startswith("redis+"):
        client = redis.asyncio.Redis.from_url(program.address.removeprefix("redis+"))
        try:
            return await reachable(client)
        finally:
            await client.aclose()
    async with open_channel(program.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=PROBE_S)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
