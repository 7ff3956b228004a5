"""KServe v2 at the router: what it says of the fleets' models, and that a request is a call as any
other.
"""

from __future__ import annotations

import grpc
import pytest
from penstock.api.inference.v1 import inference_pb2
from penstock.api.kserve import inference_pb2 as kserve
from penstock.api.kserve import inference_pb2_grpc as kserve_grpc
from penstock.api.router.v1 import router_pb2
from penstock.router.instances.backends import INFERENCE
from penstock.router.requests.resolved import ResolvedRequest
from penstock.router.settings import RouterSettings
from penstock.router.stages import Admitted, OpenAdmission
from penstock.rpc.auth import internal
from penstock.rpc.call import Call
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.errors import exhausted
from penstock.rpc.peers.stream import open_channel
from penstock.testkit.instance import OneByOneInstance
from penstock.testkit.server import TOKEN, serving

from ..rig import MODEL, Rig
from ..routed import (
    JOINED_SUCCESSES,
    METADATA,
    OTHER_METADATA,
    SCOPED_METADATA,
    Routed,
    start,
)

NOT_FOUND, INVALID = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT
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
    """Serve a model of tensors."""
    instance = EchoInstance()
    server = await routed.stack.enter_async_context(
        serving([Endpoint(INFERENCE, instance, internal(TOKEN))])
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
    return instance


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
        request = kserve.ModelInferRequest(model_name=model, id="7")
        request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
        request.raw_input_contents.append(DATA)
        for name, value in parameters.items():
            request.parameters[name].string_param = value
        answer = await self.call("ModelInfer", request)
        assert isinstance(answer, kserve.ModelInferResponse)
        return answer

    async def refused(self, rpc: str, request: object) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.call(rpc, request)
        return caught.value.code(), caught.value.details() or ""


async def test_a_request_is_a_call_of_its_caller_and_run(rig: Rig) -> None:
    instance = await join(rig.routed, "echo-1", "echo")
    async with Kserve(rig.routed) as client:
        answer = await client.infer(run_id="r1", step="plan")
    assert (answer.id, answer.model_name, answer.model_version) == ("7", "echo", "2")
    assert list(answer.raw_output_contents) == [DATA]
    assert answer.parameters["instance_id"].string_param == "echo-1"
    assert answer.parameters["request_id"].string_param
    (call,) = instance.calls
    assert (call.principal.organisation, call.run_id, call.step) == ("acme", "r1", "plan")


async def test_a_model_is_described_by_its_instances_and_gone_with_them(rig: Rig) -> None:
    await join(rig.routed, "echo-1", "echo")
    about, ready = kserve.ModelMetadataRequest(name="echo"), kserve.ModelReadyRequest(name="echo")
    async with Kserve(rig.routed) as client:
        told = await client.call("ModelMetadata", about)
        assert isinstance(told, kserve.ModelMetadataResponse)
        assert (list(told.versions), told.inputs[0].name) == (["2"], "x")
        await rig.routed.registry.drain("echo-1", deregister=False)
        answer = await client.call("ModelReady", ready)
        assert isinstance(answer, kserve.ModelReadyResponse) and not answer.ready
        assert (await client.refused("ModelMetadata", about))[0] is NOT_FOUND


@pytest.mark.threat("read out of scope: models over KServe")
async def test_models_out_of_scope_are_not_there(rig: Rig) -> None:
    await join(rig.routed, "echo-1", "echo")
    await join(rig.routed, "small-1", "small-echo")
    about = kserve.ModelMetadataRequest(name="echo")
    async with Kserve(rig.routed) as client:
        client.metadata = SCOPED_METADATA
        listed = await client.call("RepositoryIndex", kserve.RepositoryIndexRequest())
        assert isinstance(listed, kserve.RepositoryIndexResponse)
        assert [row.name for row in listed.models] == ["small-echo"]
        assert (await client.refused("ModelMetadata", about))[0] is NOT_FOUND
        request = kserve.ModelInferRequest(model_name="echo")
        assert (await client.refused("ModelInfer", request))[0] is NOT_FOUND


@pytest.mark.threat("cross-tenant read: statistics over KServe")
async def test_statistics_are_of_the_callers_own_requests(rig: Rig) -> None:
    await join(rig.routed, "echo-1", "echo")

    async def counted(client: Kserve) -> int:
        request = kserve.ModelStatisticsRequest(name="echo")
        answer = await client.call("ModelStatistics", request)
        assert isinstance(answer, kserve.ModelStatisticsResponse)
        return answer.model_stats[0].inference_count

    async with Kserve(rig.routed) as client:
        await client.infer()
        assert await counted(client) == 1
        client.metadata = OTHER_METADATA
        assert await counted(client) == 0


async def test_a_version_is_refused_while_instances_have_several(rig: Rig) -> None:
    await join(rig.routed, "echo-1", "echo", "2-abc")
    await join(rig.routed, "echo-2", "echo", "10-def")
    async with Kserve(rig.routed) as client:
        told = await client.call("ModelMetadata", kserve.ModelMetadataRequest(name="echo"))
        assert isinstance(told, kserve.ModelMetadataResponse)
        assert list(told.versions) == ["2", "10"]
        code, words = await client.refused(
            "ModelMetadata", kserve.ModelMetadataRequest(name="echo", version="2")
        )
        assert code is grpc.StatusCode.FAILED_PRECONDITION and "2, 10" in words
        assert (await client.infer()).model_version


async def test_a_model_without_tensors_is_no_model_of_the_protocol(rig: Rig) -> None:
    async with Kserve(rig.routed) as client:
        about = kserve.ModelMetadataRequest(name=MODEL)
        code, words = await client.refused("ModelMetadata", about)
        assert code is INVALID and "takes no tensors" in words
        index = await client.call("RepositoryIndex", kserve.RepositoryIndexRequest())
        assert isinstance(index, kserve.RepositoryIndexResponse) and not index.models


async def test_callers_need_a_key(rig: Rig) -> None:
    async with Kserve(rig.routed) as client:
        assert (await client.stub.ServerLive(kserve.ServerLiveRequest())).live
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.stub.ModelReady(kserve.ModelReadyRequest(name="echo"))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


class NothingLeft(OpenAdmission):
    """Refuses every call."""

    def admit_now(self, call: Call, request: ResolvedRequest) -> Admitted | None:
        return None

    async def admit(self, call: Call, request: ResolvedRequest) -> Admitted:
        raise exhausted("limit wide is used up for now", retry_after_s=2.0)


async def test_what_is_not_admitted_is_not_computed() -> None:
    async with start(RouterSettings(default_model=MODEL), admission=NothingLeft()) as routed:
        instance = await join(routed, "echo-1", "echo")
        async with Kserve(routed) as client:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.infer()
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "limit wide" in (caught.value.details() or "")
        assert not instance.calls
