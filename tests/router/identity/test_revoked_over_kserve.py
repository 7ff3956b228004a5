"""Calls of KServe v2 end with their caller's key, over gRPC and HTTP alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import httpx
import pytest
from penstock.api.inference.v1 import inference_pb2
from penstock.api.kserve import inference_pb2 as kserve
from penstock.kserve.http_service import app_of
from penstock.kserve.inference import Inference
from penstock.kserve.model_server import Computed, ServedModel
from penstock.rpc.auth import Metadata
from penstock.rpc.call import Call
from penstock.rpc.errors import unauthenticated
from penstock.rpc.open_calls import OpenCalls
from penstock.service.clock import SystemClock
from penstock.testkit.eventually import eventually

from ..routed import METADATA
from ..scripted import Behaviour
from ..tensors import TENSOR, Kserve, join_as, tensor_request
from .key_rig import OLGA, KeyRig, asked, key_rig

Pairs = tuple[tuple[str, str], ...]
Ask = Callable[[Kserve, Pairs], Awaitable[grpc.StatusCode]]


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[KeyRig]:
    """A router whose instance of the model `echo` hangs."""
    async with key_rig(tmp_path) as made:
        made.instance.behaviour = Behaviour.HANGS
        await join_as(made.routed, "echo-1", "echo", made.instance)
        yield made


async def infer(client: Kserve, metadata: Pairs) -> grpc.StatusCode:
    """How a request of this caller is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.stub.ModelInfer(tensor_request(), metadata=metadata, timeout=20)
    return caught.value.code()


async def stream(client: Kserve, metadata: Pairs) -> grpc.StatusCode:
    """How a stream of this caller ends, in which one request waits for its answer."""
    answers = client.stub.ModelStreamInfer(metadata=metadata, timeout=20)
    await answers.write(tensor_request())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await answers.read()
    return caught.value.code()


@pytest.mark.threat("revoked key with a call in flight over KServe")
@pytest.mark.parametrize("ask", [infer, stream])
async def test_a_revoked_key_ends_its_calls_and_no_others(rig: KeyRig, ask: Ask) -> None:
    key, metadata = await rig.made()
    async with Kserve(rig.routed) as client:
        refused = asyncio.ensure_future(ask(client, metadata))
        other = asyncio.ensure_future(client.infer())
        await eventually(lambda: len(rig.instance.calls) == 2)
        await rig.revoke(key)
        assert await refused is grpc.StatusCode.UNAUTHENTICATED
        await asyncio.wait_for(rig.instance.cancelled.wait(), 10)
        assert not other.done()
        other.cancel()


@pytest.mark.threat("expired key with a call in flight over KServe")
async def test_a_key_that_expires_ends_its_calls(rig: KeyRig) -> None:
    made = await rig.service.CreateKey(asked(organisation="acme", ttl_ms=2_000), OLGA)
    metadata = (("authorization", f"Bearer {made.secret}"),)
    await eventually(lambda: rig.is_accepted(metadata))
    async with Kserve(rig.routed) as client:
        assert await infer(client, metadata) is grpc.StatusCode.UNAUTHENTICATED
    await asyncio.wait_for(rig.instance.cancelled.wait(), 10)


@pytest.mark.threat("credential sent twice over KServe")
async def test_two_credentials_are_refused(rig: KeyRig) -> None:
    _, metadata = await rig.made()
    async with Kserve(rig.routed) as client:
        code = await infer(client, (*metadata, *METADATA))
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert not rig.instance.calls


class HangingModels:
    """A model server of one model that never answers, and of one caller."""

    version, extensions = "1", ()

    def __init__(self) -> None:
        self.accepted = True
        self.began, self.cancelled = asyncio.Event(), asyncio.Event()

    def caller(self, metadata: Metadata) -> Call:
        if not self.accepted or metadata.get("authorization") != "Bearer ann":
            raise unauthenticated("not known")
        return Call()

    def models(self, call: Call) -> list[ServedModel]:
        return [self.model("echo", "", call)]

    def model(self, name: str, version: str, call: Call) -> ServedModel:
        return ServedModel(name, ("1",), (TENSOR,), (TENSOR,))

    async def infer(
        self, request: kserve.ModelInferRequest, task: inference_pb2.InferTask, call: Call
    ) -> Computed:
        self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()
        raise AssertionError("is never reached")

    def index(self, call: Call) -> list[kserve.RepositoryIndexResponse.ModelIndex]:
        return []

    async def load(self, name: str) -> None:
        raise AssertionError("is not called")

    async def unload(self, name: str) -> None:
        raise AssertionError("is not called")

    def trailer(self) -> tuple[()]:
        return ()


@pytest.mark.threat("revoked key with a call in flight over KServe's HTTP")
async def test_a_caller_who_is_refused_is_told_so_over_http() -> None:
    models = HangingModels()
    open_calls = OpenCalls(models.caller)
    app = app_of(Inference(models, SystemClock(), 30.0, open_calls))
    row = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://router") as client:
        headers = {"authorization": "Bearer ann"}
        waiting = asyncio.ensure_future(
            client.post("/v2/models/echo/infer", json={"inputs": [row]}, headers=headers)
        )
        await asyncio.wait_for(models.began.wait(), 10)
        models.accepted = False
        assert open_calls.end_refused() == 1
        answer = await waiting
        assert (answer.status_code, answer.json()) == (401, {"error": "not known"})
        await asyncio.wait_for(models.cancelled.wait(), 10)
        assert (await client.get("/v2/health/live")).status_code == 200
    assert len(open_calls) == 0


@pytest.mark.threat("credential sent twice over KServe's HTTP")
async def test_two_credentials_are_refused_over_http() -> None:
    models = HangingModels()
    app = app_of(Inference(models, SystemClock(), 30.0, OpenCalls(models.caller)))
    sent = [("authorization", "Bearer ann"), ("authorization", "Bearer bob")]
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://router"
    ) as client:
        answer = await client.get("/v2/models/echo", headers=sent)
    assert answer.status_code == 401
    assert "sent twice" in answer.json()["error"]
