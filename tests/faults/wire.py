"""A real server whose one method counts what it does, for the faults of the wire."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.hosting.grpc_server import ServerLimits
from penstock.rpc.auth import internal
from penstock.rpc.call import Call
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.peers.stream import open_channel
from penstock.testkit.instance import INFERENCE, EmptyInstance
from penstock.testkit.server import TOKEN, serving

COMPUTE = f"/{INFERENCE.full_name}/Compute"
METADATA = (("penstock-token", TOKEN),)
HANG = "hang"
"""A model whose calls wait until they are cancelled."""


@dataclass
class Counting(EmptyInstance):
    """An instance that counts: calls that run now, the most at a time, and cancelled ones."""

    running: int = 0
    most: int = 0
    cancelled: int = 0
    deadlines_s: list[float] = field(default_factory=list)

    async def Compute(self, request: pb.ComputeRequest, call: Call) -> pb.ComputeResponse:
        """See InferenceService."""
        self.deadlines_s.append(call.deadline_s)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if request.model == HANG:
                await asyncio.Event().wait()
            return pb.ComputeResponse()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1


@contextlib.asynccontextmanager
async def served(servicer: EmptyInstance, limits: ServerLimits | None = None) -> AsyncIterator[str]:
    """The address of the instance."""
    endpoint = Endpoint(INFERENCE, servicer, internal(TOKEN))
    async with serving([endpoint], limits=limits) as server:
        yield server.address


async def works(address: str) -> bool:
    """Whether a normal call is answered."""
    async with open_channel(address) as channel:
        answer = await channel.unary_unary(COMPUTE)(b"", metadata=METADATA, timeout=20.0)
    return answer == b""
