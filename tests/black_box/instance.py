"""An instance whose answers a test scripts, made of the generated stubs alone: it serves the item
stream that the batcher opens, and registers with the router as any instance does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

import grpc
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.api.inference.v1 import inference_pb2_grpc
from penstock.api.router.v1 import router_pb2

HEARTBEAT_S = 0.2


class Refuse(Exception):
    """Raised by a script: the item fails with this status."""

    def __init__(self, code: grpc.StatusCode, reason: str = "", message: str = "scripted") -> None:
        super().__init__(message)
        self.status = common_pb2.ItemStatus(code=code.value[0], message=message, reason=reason)


@dataclass(frozen=True)
class Asked:
    """One task that has arrived, with the context that came with it."""

    task: pb.Task
    context: common_pb2.CallContext


Script = Callable[[Asked], AsyncIterator[pb.GenerateChunk | pb.TaskResult]]
"""Yields pieces and at last the result, or raises Refuse."""


@dataclass
class ScriptedInstance(inference_pb2_grpc.InferenceServiceServicer):
    """The instance. `asked` is what has arrived, in order; `cancelled` what callers gave up."""

    script: Script
    name: str = ""
    asked: list[Asked] = field(default_factory=list)
    cancelled: list[Asked] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    """Members of each ComputeBatch."""

    async def Exchange(self, frames: Any, context: Any) -> AsyncIterator[pb.ExchangeResponse]:
        """Items in; each result leaves when it is ready."""
        ready: asyncio.Queue[common_pb2.ItemResult | None] = asyncio.Queue()
        reader = asyncio.create_task(self._read(frames, ready))
        try:
            yield pb.ExchangeResponse(credits=1000)
            while (result := await ready.get()) is not None:
                yield pb.ExchangeResponse(results=[result], credits=int(result.HasField("status")))
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _read(self, frames: Any, ready: asyncio.Queue[Any]) -> None:
        running: dict[int, asyncio.Task[None]] = {}
        try:
            async for frame in frames:
                for item_id in frame.cancelled_ids:
                    if item_id in running:
                        running[item_id].cancel()
                for item in frame.items:
                    running[item.id] = asyncio.create_task(self._item(item, ready))
            ready.put_nowait(None)
        finally:
            for task in running.values():
                task.cancel()
            await asyncio.gather(*running.values(), return_exceptions=True)

    async def _item(self, item: common_pb2.Item, ready: asyncio.Queue[Any]) -> None:
        status = common_pb2.ItemStatus()
        try:
            async for response in self._responses(item):
                result = common_pb2.ItemResult(id=item.id, payload=response.SerializeToString())
                if item.method == "Compute":
                    result.status.SetInParent()
                ready.put_nowait(result)
            if item.method == "Compute":
                return
        except Refuse as refusal:
            status = refusal.status
        except asyncio.CancelledError:
            status.code = grpc.StatusCode.CANCELLED.value[0]
        last = common_pb2.ItemResult(id=item.id)
        last.status.CopyFrom(status)
        ready.put_nowait(last)

    async def _responses(self, item: common_pb2.Item) -> AsyncIterator[Any]:
        if item.method == "ComputeBatch":
            members = pb.ComputeBatchRequest.FromString(item.payload).members
            self.batches.append(len(members))
            for index, member in enumerate(members):
                row = pb.MemberResult(index=index)
                try:
                    async for piece in self._run(Asked(member.task, member.context)):
                        row.result.CopyFrom(piece)
                    row.status.SetInParent()
                except Refuse as refusal:
                    row.status.CopyFrom(refusal.status)
                yield pb.ComputeBatchResponse(results=[row])
            return
        streams = item.method == "ComputeStream"
        kind = pb.ComputeStreamRequest if streams else pb.ComputeRequest
        asked = Asked(kind.FromString(item.payload).task, item.context)
        async for piece in self._run(asked):
            if isinstance(piece, pb.GenerateChunk):
                if streams:
                    yield pb.ComputeStreamResponse(chunk=piece)
            else:
                yield (pb.ComputeStreamResponse if streams else pb.ComputeResponse)(result=piece)

    async def _run(self, asked: Asked) -> AsyncIterator[pb.GenerateChunk | pb.TaskResult]:
        self.asked.append(asked)
        try:
            async for piece in self.script(asked):
                yield piece
        except asyncio.CancelledError:
            self.cancelled.append(asked)
            raise


def prompt_of(asked: Asked) -> str:
    """The text of a task: of its first text, or of its last turn."""
    kind = asked.task.WhichOneof("task")
    if kind == "generate":
        return asked.task.generate.messages[-1].content
    return getattr(asked.task, str(kind)).texts[0]


def said(text: str, input_tokens: int = 7, output_tokens: int = 3, **usage: Any) -> pb.TaskResult:
    """A whole answer that took 5 ms and this many tokens."""
    result = pb.TaskResult(compute_ms=5.0, revision="scripted")
    result.generate.message.role, result.generate.message.content = pb.ROLE_ASSISTANT, text
    result.generate.finish_reason = pb.FINISH_REASON_STOP
    result.usage.CopyFrom(
        common_pb2.Usage(input_tokens=input_tokens, output_tokens=output_tokens, **usage)
    )
    return result


def embedded(*values: float) -> pb.TaskResult:
    """A vector that took 5 ms and 2 tokens."""
    result = pb.TaskResult(compute_ms=5.0, revision="scripted")
    result.embed.embeddings.add(values=values)
    result.usage.input_tokens = 2
    return result


def labelled(label: str, score: float, input_tokens: int = 2) -> pb.TaskResult:
    """One classification that took 5 ms."""
    result = pb.TaskResult(compute_ms=5.0, revision="scripted")
    result.classify.classifications.add().labels.add(label=label, score=score)
    result.usage.input_tokens = input_tokens
    return result


async def echo(asked: Asked) -> AsyncIterator[pb.GenerateChunk | pb.TaskResult]:
    """Repeats the prompt, as one piece; embeds as [1, 0]."""
    if asked.task.WhichOneof("task") == "embed":
        result = embedded(1.0, 0.0)
        del result.embed.embeddings[:]
        for _ in asked.task.embed.texts:
            result.embed.embeddings.add(values=[1.0, 0.0])
        yield result
        return
    yield pb.GenerateChunk(delta=prompt_of(asked))
    yield pb.GenerateChunk(finish_reason=pb.FINISH_REASON_STOP)
    yield said(prompt_of(asked))


def always(result: pb.TaskResult) -> Script:
    """A script of one whole answer."""

    async def script(asked: Asked) -> AsyncIterator[pb.GenerateChunk | pb.TaskResult]:
        yield result

    return script


Serve = Callable[..., AbstractAsyncContextManager[ScriptedInstance]]
"""What the fixture `serve` gives: called with a script, models, and fields of the registration."""


@contextlib.asynccontextmanager
async def listening(instance: ScriptedInstance) -> AsyncIterator[str]:
    """Serve the instance on a free port; gives its address."""
    server = grpc.aio.server()
    inference_pb2_grpc.add_InferenceServiceServicer_to_server(instance, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)
        del server  # its finaliser wants a running loop, and a traceback would keep it for longer


@contextlib.asynccontextmanager
async def serving(
    registry: Any, token: Any, instance: ScriptedInstance, *models: str, **fields: Any
) -> AsyncIterator[ScriptedInstance]:
    """Serve the instance and keep it registered under its name; it leaves at the end.

    `fields` are those of the registered Instance, such as concurrency and capabilities.
    """
    tasks = [
        pb.TASK_KIND_EMBED,
        pb.TASK_KIND_CLASSIFY,
        pb.TASK_KIND_GENERATE,
        pb.TASK_KIND_INFER,
    ]
    row = router_pb2.Instance(id=instance.name, **fields)
    for model in models:
        row.models.add(name=model, state=pb.MODEL_STATE_READY, tasks=tasks, revision="scripted")
    async with listening(instance) as row.address:
        await registry.Register(router_pb2.RegisterRequest(instance=row), metadata=token)
        beats = asyncio.create_task(_heartbeats(registry, token, instance.name))
        try:
            yield instance
        finally:
            beats.cancel()
            await asyncio.gather(beats, return_exceptions=True)
            leave = router_pb2.DrainRequest(instance_id=instance.name, deregister=True)
            await registry.Drain(leave, metadata=token)


async def _heartbeats(registry: Any, token: Any, name: str) -> None:
    while True:
        await asyncio.sleep(HEARTBEAT_S)
        await registry.Heartbeat(router_pb2.HeartbeatRequest(instance_id=name), metadata=token)
