"""A router with two scripted instances of one model, and what is asked of it most."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault, to_fault

from .routed import Routed
from .scripted import Behaviour, ScriptedInstance

MODEL = "m"
"""The router's default model."""


def embed(*texts: str, **options: Any) -> pb.EmbedRequest:
    """A request to embed these texts, or one."""
    return pb.EmbedRequest(texts=texts or ["hello"], options=pb.CallOptions(**options))


def conversation(content: str = "hi", **options: Any) -> pb.GenerateStreamRequest:
    """A request to say something, piece by piece."""
    message = inference_pb2.Message(role=inference_pb2.ROLE_USER, content=content)
    task = inference_pb2.GenerateTask(messages=[message])
    return pb.GenerateStreamRequest(task=task, options=pb.CallOptions(**options))


@dataclass
class Rig:
    """The router and its instances `a` and `b`."""

    routed: Routed
    instances: dict[str, ScriptedInstance]

    def all_do(self, behaviour: Behaviour) -> None:
        """From now on every instance does this."""
        for instance in self.instances.values():
            instance.behaviour = behaviour

    async def embed(self, *texts: str, timeout_s: float = 20.0, **options: Any) -> pb.EmbedResponse:
        """Embed these texts, or one."""
        request = embed(*texts, **options)
        answer: pb.EmbedResponse = await self.routed.stub.Embed(
            request, metadata=self.routed.metadata, timeout=timeout_s
        )
        return answer

    async def stream(self, content: str = "hi", **options: Any) -> list[pb.GenerateStreamResponse]:
        """Have something said."""
        parts = self.routed.stub.GenerateStream(
            conversation(content, **options), metadata=self.routed.metadata, timeout=20
        )
        return [part async for part in parts]

    def seen_call(self) -> Call:
        """The one call that has come to an instance."""
        [call] = [call for instance in self.instances.values() for call in instance.calls]
        return call


async def fault_of(answer: Awaitable[object]) -> Fault:
    """What the caller is told of a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await answer
    return to_fault(failed.value)
