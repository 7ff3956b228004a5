"""Jobs over the public door: submitted, watched, shown and cancelled by gRPC, served by a real
instance, kept in a real Redis.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.settings import RouterSettings
from penstock.rpc.call import Call
from penstock.service.store import embedded_store, open_store

MODEL = "m"


@dataclass
class Worker:
    """Answers, or hangs until it is cancelled."""

    started: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    async def Compute(
        self, request: inference_pb2.ComputeRequest, call: Call
    ) -> inference_pb2.ComputeResponse:
        if request.task.embed.texts[0] == "hang":
            self.started.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled.set()
        result = inference_pb2.TaskResult(revision="1", compute_ms=1.0)
        result.embed.embeddings.add(values=[2.0])
        return inference_pb2.ComputeResponse(result=result)

    ComputeStream = ComputeBatch = ListModels = LoadModel = UnloadModel = Compute


@dataclass
class Rig:
    routed: Any
    worker: Worker

    async def ask(self, method: str, request: object) -> Any:
        return await getattr(self.routed.stub, method)(
            request, metadata=self.routed.metadata, timeout=20
        )

    async def watch(self, job_id: str) -> list[pb.Job]:
        states = self.routed.stub.WatchJob(
            pb.WatchJobRequest(id=job_id), metadata=self.routed.metadata, timeout=20
        )
        return [answer.job async for answer in states]


def submission(text: str = "hello", **changes: object) -> pb.SubmitJobRequest:
    task = inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=[text] if text else []))
    return pb.SubmitJobRequest(task=task, **changes)  # type: ignore[arg-type]


@pytest.fixture
async def rig(start_router: Callable[..., Any], tmp_path: Path) -> AsyncIterator[Rig]:
    settings, worker = RouterSettings(default_model=MODEL), Worker()
    async with (
        embedded_store(tmp_path / "redis") as url,
        open_store(url) as store,
        start_router(settings, store=store) as routed,
    ):
        await routed.join("a", worker, MODEL)
        yield Rig(routed, worker)


async def test_a_job_is_accepted_at_once_watched_to_its_end_and_shown_with_its_receipt(
    rig: Rig,
) -> None:
    job = (await rig.ask("SubmitJob", submission(idempotency_token="t"))).job
    states = await rig.watch(job.id)
    assert [item.state for item in states][-1] == pb.JOB_STATE_SUCCEEDED
    shown = (await rig.ask("GetJob", pb.GetJobRequest(id=job.id))).job
    assert shown == states[-1]
    assert shown.result.embed.embeddings[0].values[0] == 2.0
    assert (shown.receipt.route.instance_id, shown.attempts) == ("a", 1)
    assert shown.ended_unix_ms >= shown.submitted_unix_ms > 0
    assert (await rig.ask("SubmitJob", submission(idempotency_token="t"))).job.id == job.id


async def test_a_cancel_reaches_the_instance(rig: Rig) -> None:
    job = (await rig.ask("SubmitJob", submission("hang"))).job
    await asyncio.wait_for(rig.worker.started.wait(), 20)
    assert (
        await rig.ask("CancelJob", pb.CancelJobRequest(id=job.id))
    ).job.state == pb.JOB_STATE_CANCELLED
    await asyncio.wait_for(rig.worker.cancelled.wait(), 20)
    assert (await rig.watch(job.id))[-1].state == pb.JOB_STATE_CANCELLED


@pytest.mark.parametrize(
    ("method", "request_", "code", "field_name"),
    [
        ("SubmitJob", submission(""), grpc.StatusCode.INVALID_ARGUMENT, "task.embed.texts"),
        ("SubmitJob", pb.SubmitJobRequest(), grpc.StatusCode.INVALID_ARGUMENT, "task"),
        ("SubmitJob", submission(deadline_ms=-5), grpc.StatusCode.INVALID_ARGUMENT, "deadline_ms"),
        (
            "SubmitJob",
            submission(callback_url="https://x/"),
            grpc.StatusCode.INVALID_ARGUMENT,
            "callback_url",
        ),
        ("GetJob", pb.GetJobRequest(), grpc.StatusCode.INVALID_ARGUMENT, "id"),
        ("GetJob", pb.GetJobRequest(id="none"), grpc.StatusCode.NOT_FOUND, "id"),
        ("CancelJob", pb.CancelJobRequest(id="none"), grpc.StatusCode.NOT_FOUND, "id"),
    ],
)
async def test_bad_input_names_its_field(
    rig: Rig, method: str, request_: object, code: grpc.StatusCode, field_name: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rig.ask(method, request_)
    assert caught.value.code() is code
    assert (caught.value.details() or "").startswith(f"{field_name}: ")


async def test_watching_what_is_not_there_ends_with_the_reason(rig: Rig) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rig.watch("none")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_without_redis_jobs_are_refused_and_calls_are_not(
    start_router: Callable[..., Any],
) -> None:
    async with start_router(RouterSettings(default_model=MODEL)) as routed:
        await routed.join("a", Worker(), MODEL)
        rig = Rig(routed, Worker())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await rig.ask("SubmitJob", submission())
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert (await rig.ask("Embed", pb.EmbedRequest(texts=["x"]))).embeddings
