"""Instances that do as they are told: answer, refuse, hang, or cut their stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from enum import Enum

from penstock.api.inference.v1 import inference_pb2
from penstock.rpc.call import Call
from penstock.rpc.errors import exhausted, internal, invalid, unavailable
from penstock.rpc.reasons import Reason
from penstock.tasks.rerank import ranking_of
from penstock.testkit.instance import EmptyInstance


class Behaviour(Enum):
    """What a scripted instance does with the next call."""

    ANSWERS = "answers"
    IS_DOWN = "is down"
    IS_FULL = "its queue is full"
    IS_SICK = "answers with an error of its own"
    REFUSES_TEXT = "refuses the first text"
    HANGS = "hangs"
    CUTS_STREAMS = "cuts its streams"


class ScriptedInstance(EmptyInstance):
    """Embeds everything as [1.0], and says "one two " to every conversation."""

    def __init__(self) -> None:
        self.behaviour = Behaviour.ANSWERS
        self.requests: list[inference_pb2.ComputeRequest] = []
        self.calls: list[Call] = []
        self.hanging = asyncio.Event()
        self.cancelled = asyncio.Event()
        """Set when a call that hung has been cancelled."""

    async def Compute(
        self, request: inference_pb2.ComputeRequest, call: Call
    ) -> inference_pb2.ComputeResponse:
        self.requests.append(request)
        self.calls.append(call)
        match self.behaviour:
            case Behaviour.IS_DOWN:
                raise unavailable("no")
            case Behaviour.IS_FULL:
                raise exhausted("the queue is full", reason=Reason.QUEUE_FULL, retry_after_s=1.0)
            case Behaviour.IS_SICK:
                raise internal("out of memory")
            case Behaviour.REFUSES_TEXT:
                raise invalid("task.embed.texts[0]", "is odd")
            case Behaviour.HANGS:
                await self._hang()
        result = inference_pb2.TaskResult(compute_ms=1.5, revision="1-abc")
        if request.task.HasField("rerank"):
            sizes = [float(len(document)) for document in request.task.rerank.documents]
            result.rerank.CopyFrom(ranking_of(sizes, request.task.rerank.top_n))
        else:
            result.embed.embeddings.add(values=[1.0])
        return inference_pb2.ComputeResponse(result=result)

    async def _hang(self) -> None:
        self.hanging.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()

    async def ComputeStream(
        self, request: inference_pb2.ComputeStreamRequest, call: Call
    ) -> AsyncIterator[inference_pb2.ComputeStreamResponse]:
        self.calls.append(call)
        if self.behaviour is Behaviour.IS_DOWN:
            raise unavailable("no")
        for delta in ("one ", "two "):
            chunk = inference_pb2.GenerateChunk(delta=delta)
            yield inference_pb2.ComputeStreamResponse(chunk=chunk)
        if self.behaviour is Behaviour.CUTS_STREAMS:
            return
        chunk = inference_pb2.GenerateChunk(finish_reason=inference_pb2.FINISH_REASON_STOP)
        result = inference_pb2.TaskResult(revision="1")
        yield inference_pb2.ComputeStreamResponse(chunk=chunk, result=result)
