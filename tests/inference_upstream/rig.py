"""A service before an upstream that sends given answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_upstream.api.inference_service import UpstreamServicer
from penstock.inference_upstream.settings import Upstream
from penstock.inference_upstream.transport.client import Client
from penstock.otel.telemetry import NO_TELEMETRY
from penstock.rpc.call import Call
from penstock.service.clock import SystemClock
from penstock.testkit.raw_upstream import RawAnswer, RawRequest, RawUpstream

CALL = Call()


def asking(text: str = "go", **fields: Any) -> pb.GenerateTask:
    """A question of one user turn; `fields` are further ones of the task."""
    return pb.GenerateTask(messages=[pb.Message(role=pb.ROLE_USER, content=text)], **fields)


class Rig:
    """The service, and the upstream that it calls."""

    def __init__(self, upstream: RawUpstream, client: Client) -> None:
        self.upstream = upstream
        self.client = client
        self.service = UpstreamServicer(client, SystemClock(), NO_TELEMETRY)

    @property
    def sent(self) -> Any:
        """The body of the newest request."""
        return self.upstream.requests[-1].body

    async def compute(self, task: pb.Task) -> pb.TaskResult:
        """The result of any task."""
        response = await self.service.Compute(pb.ComputeRequest(model="m", task=task), CALL)
        return response.result

    async def whole(self, task: pb.GenerateTask) -> pb.TaskResult:
        """A whole answer."""
        return await self.compute(pb.Task(generate=task))

    async def chunks(self, task: pb.GenerateTask) -> tuple[list[pb.GenerateChunk], pb.TaskResult]:
        """The chunks of a streamed answer, and its result."""
        chunks, result = [], None
        request = pb.ComputeStreamRequest(model="m", task=pb.Task(generate=task))
        async for part in self.service.ComputeStream(request, CALL):
            chunks.append(part.chunk)
            if part.HasField("result"):
                result = part.result
        assert result is not None
        return chunks, result

    async def streamed(self, task: pb.GenerateTask) -> pb.TaskResult:
        """The result of a streamed answer."""
        return (await self.chunks(task))[1]


@asynccontextmanager
async def serving(
    answer: RawAnswer | Callable[[RawRequest], RawAnswer],
    model: dict[str, Any] | None = None,
    **server: Any,
) -> AsyncIterator[Rig]:
    """A service whose upstream gives this answer, or answers by a function of the request.

    Args:
        model: keys of the model's section.
        server: keys of the upstream's section.
    """
    answers = answer if callable(answer) else lambda _: answer
    async with RawUpstream(answers) as upstream:
        models = [{"name": "m", "upstream_name": "model-x", **(model or {})}]
        section = {"name": "up", "base_url": upstream.url, "models": models, **server}
        client = Client(Upstream.model_validate(section), NO_TELEMETRY)
        try:
            yield Rig(upstream, client)
        finally:
            await client.close()
