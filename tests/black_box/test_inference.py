"""The inference contract at the instance itself: one task, a group, a stream, and its models."""

from __future__ import annotations

from typing import Any

import pytest
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2 as pb

from .calls import TIMEOUT_S, Api, refused
from .configuration import EMBEDDER

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="session")]


def embed(*texts: str) -> pb.Task:
    return pb.Task(embed=pb.EmbedTask(texts=texts))


async def compute(api: Api, task: pb.Task, model: str = "") -> Any:
    request = pb.ComputeRequest(task=task, model=model)
    return await api.inference.Compute(request, metadata=api.token, timeout=TIMEOUT_S)


async def test_a_task_is_computed_with_usage_time_and_load(api: Api) -> None:
    answer = await compute(api, embed("hello there", "again"))
    result = answer.result
    assert [len(row.values) for row in result.embed.embeddings] == [384, 384]
    assert result.usage == common_pb2.Usage(input_tokens=4 + 3)
    assert result.compute_ms > 0
    assert result.revision.startswith("1-")
    assert answer.load.concurrency == 1
    assert answer.load.service_ms > 0


async def test_each_member_of_a_group_has_its_own_fate(api: Api) -> None:
    request = pb.ComputeBatchRequest()
    request.members.add(task=embed("fine"), context=common_pb2.CallContext(remaining_ms=20_000))
    request.members.add(task=embed(""), context=common_pb2.CallContext(remaining_ms=20_000))
    request.members.add(task=embed("too late"), context=common_pb2.CallContext(remaining_ms=0))
    call = api.inference.ComputeBatch(request, metadata=api.token, timeout=TIMEOUT_S)
    rows = {row.index: row async for part in call for row in part.results}
    assert {index: row.status.code for index, row in rows.items()} == {0: 0, 1: 3, 2: 4}
    assert len(rows[0].result.embed.embeddings) == 1
    assert rows[1].status.field == "task.embed.texts[0]"
    assert not rows[1].HasField("result")


async def test_a_stream_of_a_task_that_is_no_conversation_is_one_chunk(api: Api) -> None:
    request = pb.ComputeStreamRequest(task=embed("hello"))
    call = api.inference.ComputeStream(request, metadata=api.token, timeout=TIMEOUT_S)
    (part,) = [part async for part in call]
    assert part.chunk.finish_reason == pb.FINISH_REASON_STOP
    assert len(part.result.embed.embeddings) == 1


async def test_models_are_listed_as_the_instance_has_them(api: Api) -> None:
    answer = await api.inference.ListModels(pb.ListModelsRequest(), metadata=api.token)
    row = next(row for row in answer.models if row.name == EMBEDDER)
    assert (row.state, row.max_input_tokens, row.dimension) == (pb.MODEL_STATE_READY, 256, 384)
    assert set(row.tasks) == {
        pb.TASK_KIND_EMBED,
        pb.TASK_KIND_CLASSIFY,
        pb.TASK_KIND_RERANK,
        pb.TASK_KIND_INFER,
    }
    assert row.revision.startswith("1-")
    assert row.memory_bytes > 1 << 20


@pytest.mark.parametrize(
    ("task", "field"),
    [
        (pb.Task(), "task"),
        (embed(), "task.embed.texts"),
        (embed("x" * 40_000), "task.embed.texts[0]"),
        (embed(*["x"] * 1_025), "task.embed.texts"),
        (pb.Task(classify=pb.ClassifyTask(texts=["x"])), "task.classify.examples"),
        (pb.Task(infer=pb.InferTask()), "task.infer.inputs"),
    ],
)
async def test_a_bad_field_is_named(api: Api, task: pb.Task, field: str) -> None:
    told = await refused(compute(api, task))
    assert (told.code, told.field) == ("INVALID_ARGUMENT", field)


async def test_an_unknown_model_is_not_found_and_cannot_be_loaded(api: Api) -> None:
    told = await refused(compute(api, embed("x"), "other"))
    assert (told.code, told.field) == ("NOT_FOUND", "model")
    load = pb.LoadModelRequest(name="other")
    told = await refused(api.inference.LoadModel(load, metadata=api.token))
    assert told.code == "NOT_FOUND"


async def test_a_model_is_loaded_again_without_losing_a_request(api: Api) -> None:
    request = pb.LoadModelRequest(name=EMBEDDER)
    answer = await api.inference.LoadModel(request, metadata=api.token, timeout=TIMEOUT_S)
    assert (answer.model.name, answer.model.state) == (EMBEDDER, pb.MODEL_STATE_READY)
    assert (await compute(api, embed("still here"))).result.HasField("embed")


async def test_a_providers_models_are_not_ours_to_load(api: Api) -> None:
    for method, request in (
        ("LoadModel", pb.LoadModelRequest(name="chat")),
        ("UnloadModel", pb.UnloadModelRequest(name="chat")),
    ):
        told = await refused(getattr(api.upstream, method)(request, metadata=api.token))
        assert (told.code, told.field) == ("FAILED_PRECONDITION", "name")
