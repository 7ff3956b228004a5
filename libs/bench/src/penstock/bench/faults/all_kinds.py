"""An instant instance that serves every task kind, and one request of each."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Callable
from typing import Any

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.api.router.v1 import router_pb2
from penstock.rpc.call import Call
from penstock.testkit.instance import OneByOneInstance

OUTPUT_TOKENS, MAX_TOKENS = 7, 16
TEXT = "the quick brown fox jumps over the lazy dog"
NUMBERS = pb.Tensor(name="x", datatype="FP32", shape=[1], data=struct.pack("<f", 1.0))
Build = Callable[[str, router_pb2.CallOptions], Any]


class AllKinds(OneByOneInstance):
    """Answers any task at once; says what it used."""

    async def Compute(self, request: pb.ComputeRequest, call: Call) -> pb.ComputeResponse:
        """See InferenceService."""
        return pb.ComputeResponse(result=_result(request.task))

    async def ComputeStream(
        self, request: pb.ComputeStreamRequest, call: Call
    ) -> AsyncIterator[pb.ComputeStreamResponse]:
        """See InferenceService."""
        yield pb.ComputeStreamResponse(chunk=pb.GenerateChunk(delta=TEXT))
        yield pb.ComputeStreamResponse(result=_result(request.task))


def _result(task: pb.Task) -> pb.TaskResult:
    result = pb.TaskResult(revision="1", compute_ms=0.1)
    result.usage.input_tokens = 10
    match task.WhichOneof("task"):
        case "embed":
            for _ in task.embed.texts:
                result.embed.embeddings.add(values=[1.0])
        case "classify":
            for _ in task.classify.texts:
                result.classify.classifications.add().labels.add(label="a", score=1.0)
        case "rerank":
            for index, _ in enumerate(task.rerank.documents):
                result.rerank.ranking.add(index=index, score=1.0)
        case "infer":
            result.infer.outputs.add().CopyFrom(NUMBERS)
        case _:
            result.generate.message.role = pb.ROLE_ASSISTANT
            result.generate.message.content = TEXT
            result.generate.finish_reason = pb.FINISH_REASON_STOP
            result.usage.output_tokens = OUTPUT_TOKENS
    return result


def _classify(text: str, options: router_pb2.CallOptions) -> Any:
    examples = [pb.LabelledExample(label=label, text=label) for label in "ab"]
    return router_pb2.ClassifyRequest(texts=[text], examples=examples, options=options)


def _generate(text: str, options: router_pb2.CallOptions) -> Any:
    message = pb.Message(role=pb.ROLE_USER, content=text)
    task = pb.GenerateTask(messages=[message], max_tokens=MAX_TOKENS)
    return router_pb2.GenerateRequest(task=task, options=options)


def _infer(_: str, options: router_pb2.CallOptions) -> Any:
    return router_pb2.InferRequest(task=pb.InferTask(inputs=[NUMBERS]), options=options)


REQUESTS: dict[str, Build] = {
    "Embed": lambda text, options: router_pb2.EmbedRequest(texts=[text], options=options),
    "Classify": _classify,
    "Generate": _generate,
    "Infer": _infer,
    "Rerank": lambda text, options: router_pb2.RerankRequest(
        query=text, documents=["a", "b"], options=options
    ),
}
"""By RPC, its request for a text under options."""
