"""An instance of a hosted model that fails as it is told, and conversations to put to it."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterable

from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault
from penstock.rpc.reasons import Reason
from penstock.testkit.instance import EmptyInstance

from ..routed import Routed


class HostedModel(EmptyInstance):
    """Says "yes" to every conversation, once it has had its faults."""

    def __init__(self, faults: Iterable[Fault] = (), *, always: Fault | None = None) -> None:
        self.faults = deque(faults)
        self.always = always
        """The fault of every call, once the others have been had."""
        self.tasks: list[inference_pb2.Task] = []

    async def Compute(
        self, request: inference_pb2.ComputeRequest, call: Call
    ) -> inference_pb2.ComputeResponse:
        return inference_pb2.ComputeResponse(result=self._answer(request.task))

    async def ComputeStream(
        self, request: inference_pb2.ComputeStreamRequest, call: Call
    ) -> AsyncIterator[inference_pb2.ComputeStreamResponse]:
        result = self._answer(request.task)
        stop = inference_pb2.FINISH_REASON_STOP
        chunk = inference_pb2.GenerateChunk(delta="yes", finish_reason=stop)
        yield inference_pb2.ComputeStreamResponse(chunk=chunk, result=result)

    def _answer(self, task: inference_pb2.Task) -> inference_pb2.TaskResult:
        self.tasks.append(task)
        fault = self.faults.popleft() if self.faults else self.always
        if fault is not None:
            raise fault
        result = inference_pb2.TaskResult(revision="1")
        result.generate.message.role = inference_pb2.ROLE_ASSISTANT
        result.generate.message.content = "yes"
        result.generate.finish_reason = inference_pb2.FINISH_REASON_STOP
        result.usage.input_tokens, result.usage.output_tokens = 4, 1
        return result


def fault(reason: Reason, message: str = "no", retry_after_s: float = 0.0) -> Fault:
    """What an instance raises."""
    return Fault(reason, message, retry_after_s=retry_after_s)


async def join(
    routed: Routed, name: str, model: str, *faults: Fault, always: Fault | None = None
) -> HostedModel:
    """A hosted model that the router takes for a proven one."""
    instance = HostedModel(faults, always=always)
    await routed.join(name, instance, model)
    return instance


def set_window(routed: Routed, name: str, tokens: int) -> None:
    """The longest prompt that the instance's model says it takes."""
    routed.registry.registered[name].models[0].max_input_tokens = tokens


async def generate(
    routed: Routed, model: str, content: str = "is it?", **options: object
) -> pb.GenerateResponse:
    """Have the conversation answered."""
    request = pb.GenerateRequest(options=pb.CallOptions(model=model, **options))  # type: ignore[arg-type]
    request.task.messages.add(role=inference_pb2.ROLE_USER, content=content)
    answer: pb.GenerateResponse = await routed.stub.Generate(
        request, metadata=routed.metadata, timeout=20
    )
    return answer
