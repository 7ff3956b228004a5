"""Instances of models that take tensors, and a client of KServe v2 at a router."""

from __future__ import annotations

import grpc
import pytest
from penstock.api.inference.v1 import inference_pb2
from penstock.api.kserve import inference_pb2 as kserve
from penstock.api.kserve import inference_pb2_grpc as kserve_grpc
from penstock.api.router.v1 import router_pb2
from penstock.router.instances.backends import INFERENCE
from penstock.rpc.auth import internal
from penstock.rpc.call import Call
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.peers.stream import open_channel
from penstock.testkit.instance import OneByOneInstance
from penstock.testkit.server import TOKEN, serving

from .routed import JOINED_SUCCESSES, METADATA, Routed

TENSOR = inference_pb2.TensorSpec(name="x", datatype="FP32", shape=[-1, 2])
DATA = bytes(8)


class EchoInstance(OneByOneInstance):
    """Gives each input back as the output `x`, and remembers its calls."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    async def Compute(
        self, request: inference_pb2.ComputeRequest, call: Call
    ) -> inference_pb2.ComputeResponse:
        self.calls.append(call)
        result = inference_pb2.TaskResult(revision="2-abc", compute_ms=1.0)
        result.infer.outputs.extend(request.task.infer.inputs)
        return inference_pb2.ComputeResponse(result=result)


async def join(routed: Routed, name: str, model: str, revision: str = "2-abc") -> EchoInstance:
    """Serve a model that gives its tensors back."""
    instance = EchoInstance()
    await join_as(routed, name, model, instance, revision)
    return instance


async def join_as(
    routed: Routed, name: str, model: str, servicer: object, revision: str = "2-abc"
) -> None:
    """Serve a model of tensors and register its instance."""
    server = await routed.stack.enter_async_context(
        serving([Endpoint(INFERENCE, servicer, internal(TOKEN))])
    )
    ready = inference_pb2.Model(
        name=model,
        revision=revision,
        state=inference_pb2.MODEL_STATE_READY,
        tasks=[inference_pb2.TASK_KIND_INFER],
        tensor_inputs=[TENSOR],
        tensor_outputs=[TENSOR],
    )
    await routed.registry.register(
        router_pb2.Instance(id=name, address=server.address, models=[ready], concurrency=2)
    )
    routed.registry.members[name].successes = JOINED_SUCCESSES


def tensor_request(model: str = "echo", **parameters: str) -> kserve.ModelInferRequest:
    """A request of one row."""
    request = kserve.ModelInferRequest(model_name=model, id="7")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    request.raw_input_contents.append(DATA)
    for name, value in parameters.items():
        request.parameters[name].string_param = value
    return request


class Kserve:
    """The protocol's stub of a router."""

    def __init__(self, routed: Routed) -> None:
        self._channel = open_channel(routed.address)
        self.metadata = METADATA
        self.stub = kserve_grpc.GRPCInferenceServiceStub(self._channel)

    async def __aenter__(self) -> Kserve:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    async def call(self, rpc: str, request: object) -> object:
        return await getattr(self.stub, rpc)(request, metadata=self.metadata, timeout=20)

    async def infer(self, model: str = "echo", **parameters: str) -> kserve.ModelInferResponse:
        answer = await self.call("ModelInfer", tensor_request(model, **parameters))
        assert isinstance(answer, kserve.ModelInferResponse)
        return answer

    async def refused(self, rpc: str, request: object) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.call(rpc, request)
        return caught.value.code(), caught.value.details() or ""
