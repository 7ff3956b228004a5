"""KServe v2 at the router: what it says of the fleets' models, and that a request is a call as any
other.
"""

from __future__ import annotations

import grpc
import pytest
from penstock.api.kserve import inference_pb2 as kserve
from penstock.router.requests.resolved import ResolvedRequest
from penstock.router.settings import RouterSettings
from penstock.router.stages import Admitted, OpenAdmission
from penstock.rpc.call import Call
from penstock.rpc.errors import exhausted

from ..rig import MODEL, Rig
from ..routed import OTHER_METADATA, SCOPED_METADATA, start
from ..tensors import DATA, Kserve, join

NOT_FOUND, INVALID = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT


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
