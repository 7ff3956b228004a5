"""The inference service on the real model, over a real server."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
from identity import write_identity, write_nan
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_onnx_quantized.api.inference_service import InferenceServicer
from penstock.inference_onnx_quantized.compute_threads import ComputeThreads, LoadMeter
from penstock.inference_onnx_quantized.repository import ModelRepository
from penstock.inference_onnx_quantized.settings import InferenceSettings
from penstock.onnx.card import BadModel
from penstock.onnx.encoder import RunCancelled, TextModel
from penstock.otel.telemetry import NO_TELEMETRY
from penstock.rpc.auth import internal
from penstock.rpc.call import Call
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.errors import Fault
from penstock.rpc.peers.stream import Peer
from penstock.service.clock import SystemClock
from penstock.testkit.eventually import eventually
from penstock.testkit.server import TOKEN, peer_over

SERVICE = pb.DESCRIPTOR.services_by_name["InferenceService"]
MODEL = "all-MiniLM-L6-v2"
INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.fixture(scope="session")
def text_model(home: Path) -> TextModel:
    return TextModel.load(home / "models" / MODEL / "1")


@pytest.fixture
def repository(tmp_path: Path, home: Path) -> ModelRepository:
    shutil.copytree(home / "models" / MODEL, tmp_path / "models" / MODEL)
    repository = ModelRepository(tmp_path / "models", 1 << 30, TextModel.load)
    repository.load(MODEL)
    return repository


@pytest.fixture
def meter() -> LoadMeter:
    return LoadMeter(2)


@pytest.fixture
async def peer(
    repository: ModelRepository, meter: LoadMeter, tmp_path: Path
) -> AsyncIterator[Peer]:
    settings = InferenceSettings(home=tmp_path, max_texts=8, max_tensor_bytes=8 << 10)
    async with connected(settings, repository, meter) as connection:
        yield connection


@asynccontextmanager
async def connected(
    settings: InferenceSettings, repository: ModelRepository, meter: LoadMeter
) -> AsyncIterator[Peer]:
    """A peer to a service with two compute threads, which have nothing left to do at the end."""
    clock = SystemClock()
    threads = ComputeThreads(2, meter, clock)
    servicer = InferenceServicer(settings, repository, threads, meter, clock, NO_TELEMETRY)
    async with peer_over("unix-stream", Endpoint(SERVICE, servicer, internal(TOKEN))) as peer:
        yield peer
    await eventually(lambda: (meter.in_flight, meter.running) == (0, 0))
    threads.close()


def embed(*texts: str) -> pb.Task:
    return pb.Task(embed=pb.EmbedTask(texts=texts))


def infer(*inputs: pb.Tensor) -> pb.Task:
    return pb.Task(infer=pb.InferTask(inputs=inputs))


async def compute(peer: Peer, task: pb.Task, model: str = "") -> pb.ComputeResponse:
    request = pb.ComputeRequest(model=model, task=task)
    response: pb.ComputeResponse = await peer.call("Compute", request, Call())
    return response


async def fault_of(peer: Peer, task: pb.Task, model: str = "") -> Fault:
    with pytest.raises(Fault) as caught:
        await compute(peer, task, model)
    return caught.value


async def test_similar_texts_have_similar_embeddings(peer: Peer) -> None:
    texts = ("how do I reset my password", "I forgot my password", "the weather in Oslo")
    response = await compute(peer, embed(*texts))
    a, b, c = (np.array(item.values) for item in response.result.embed.embeddings)
    assert a.shape == (384,)
    assert abs(np.linalg.norm(a) - 1) < 1e-3
    assert a @ b > 0.6 > a @ c


async def test_an_answer_carries_usage_time_and_load(peer: Peer) -> None:
    response = await compute(peer, embed("how do I reset my password"))
    assert response.result.usage.input_tokens > 5
    assert response.result.compute_ms > 0
    assert response.load.concurrency == 2


async def test_an_answer_does_not_depend_on_its_neighbours(peer: Peer) -> None:
    text = "a lease that ends in autumn"
    alone = (await compute(peer, embed(text))).result.embed.embeddings[0]
    among_others = await compute(peer, embed("x", text, "a much longer text " * 20))
    assert among_others.result.embed.embeddings[1] == alone


async def test_a_text_is_classified_by_labelled_examples(peer: Peer) -> None:
    examples = [
        pb.LabelledExample(label="refund", text="give me my money back"),
        pb.LabelledExample(label="refund", text="I want a refund"),
        pb.LabelledExample(label="login", text="I cannot sign in"),
    ]
    texts = ["please return what I paid"]
    task = pb.Task(classify=pb.ClassifyTask(texts=texts, examples=examples, top_k=2))
    labels = (await compute(peer, task)).result.classify.classifications[0].labels
    assert [label.label for label in labels] == ["refund", "login"]
    assert sum(label.score for label in labels) == pytest.approx(1, abs=1e-4)


async def test_tensors_give_the_same_embedding_as_text(peer: Peer, text_model: TextModel) -> None:
    ids, types = text_model.encode(["hello"])[0]
    columns = {"input_ids": ids, "attention_mask": [1] * len(ids), "token_type_ids": types}
    inputs = [
        pb.Tensor(
            name=name,
            datatype="INT64",
            shape=[1, len(ids)],
            data=np.array(values, dtype=np.int64).tobytes(),
        )
        for name, values in columns.items()
    ]
    output = (await compute(peer, infer(*inputs))).result.infer.outputs[0]
    assert (output.name, output.datatype) == ("sentence_embedding", "FP32")
    assert list(output.shape) == [1, 384]
    vector = np.frombuffer(output.data, dtype=np.float32)
    assert np.allclose(vector, text_model.embed(["hello"])[0], atol=1e-6)


def ids_tensor(shape: list[int], datatype: str = "INT64") -> pb.Tensor:
    """An input of three ids, in whatever shape it claims to be."""
    data = np.ones(3, dtype=np.int64).tobytes()
    return pb.Tensor(name="input_ids", datatype=datatype, shape=shape, data=data)


@pytest.mark.parametrize(
    ("task", "field"),
    [
        (embed(), "task.embed.texts"),
        (embed("fine", "  "), "task.embed.texts[1]"),
        (embed("word " * 600), "task.embed.texts[0]"),
        (embed(*["x"] * 9), "task.embed.texts"),
        (pb.Task(), "task"),
        (pb.Task(generate=pb.GenerateTask()), "task"),
        (pb.Task(classify=pb.ClassifyTask(texts=["x"])), "task.classify.examples"),
        (infer(pb.Tensor(name="nope")), "task.infer.inputs[0].name"),
        (infer(ids_tensor([1, 3], "INT65")), "task.infer.inputs[0].datatype"),
        (infer(ids_tensor([1, 4])), "task.infer.inputs[0].data"),
        (infer(ids_tensor([3])), "task.infer.inputs[0].shape"),
        (infer(ids_tensor([1, 3])), "task.infer.inputs"),
    ],
)
async def test_a_task_that_cannot_be_computed_names_its_field(
    peer: Peer, task: pb.Task, field: str
) -> None:
    fault = await fault_of(peer, task)
    assert (fault.code, fault.field) == (INVALID_ARGUMENT, field)
    assert (await compute(peer, embed("still here"))).result.embed.embeddings


async def test_nan_never_leaves_and_other_models_go_on(
    peer: Peer, repository: ModelRepository, tmp_path: Path
) -> None:
    folder = tmp_path / "models" / "broken" / "1"
    write_nan(folder, tmp_path / "models" / MODEL / "1" / "tokenizer.json")
    repository.load("broken")
    fault = await fault_of(peer, embed("hello"), "broken")
    assert fault.code is grpc.StatusCode.INTERNAL
    assert "NaN" in fault.message
    assert (await compute(peer, embed("hello"))).result.embed.embeddings


async def test_tensors_beyond_the_limit_are_refused(
    peer: Peer, repository: ModelRepository, tmp_path: Path
) -> None:
    write_identity(tmp_path / "models" / "same" / "1", "same", {"FP32": 1})
    repository.load("same")
    data = np.ones((1 << 10, 3), dtype=np.float32)
    tensor = pb.Tensor(name="in_FP32", datatype="FP32", shape=data.shape, data=data.tobytes())
    fault = await fault_of(peer, infer(tensor), "same")
    assert (fault.code, fault.field) == (INVALID_ARGUMENT, "task.infer.inputs")


async def test_a_version_is_loaded_while_requests_are_answered(peer: Peer, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "models" / MODEL / "1", tmp_path / "models" / MODEL / "2")
    during = [asyncio.create_task(compute(peer, embed(f"text {number}"))) for number in range(24)]
    response = await peer.call("LoadModel", pb.LoadModelRequest(name=MODEL), Call())
    after = await compute(peer, embed("after"))
    versions = {(await task).result.revision[0] for task in during}
    assert response.model.revision.startswith("2-")
    assert after.result.revision.startswith("2-")
    assert versions <= {"1", "2"}


async def test_an_unknown_model_is_not_found(peer: Peer) -> None:
    fault = await fault_of(peer, embed("x"), "gpt-9")
    assert (fault.code, fault.field) == (grpc.StatusCode.NOT_FOUND, "model")


async def test_each_member_of_a_batch_has_its_own_status(peer: Peer) -> None:
    now = time.monotonic()
    in_time = Call(deadline_s=now + 30).to_context(now)
    too_late = Call(deadline_s=0).to_context(now)
    members = [
        pb.BatchMember(context=in_time, task=embed("one")),
        pb.BatchMember(context=in_time, task=embed("")),
        pb.BatchMember(context=too_late, task=embed("two")),
    ]
    responses = peer.stream("ComputeBatch", pb.ComputeBatchRequest(members=members), Call())
    codes = {row.index: row.status.code async for part in responses for row in part.results}
    assert codes == {0: 0, 1: INVALID_ARGUMENT.value[0], 2: DEADLINE_EXCEEDED.value[0]}


async def test_cancelled_tasks_leave_the_service_free(peer: Peer, meter: LoadMeter) -> None:
    tasks = [asyncio.create_task(compute(peer, embed(*["word " * 200] * 8))) for _ in range(4)]
    await eventually(lambda: meter.in_flight, every_s=0.001)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (await compute(peer, embed("after"))).result.embed.embeddings


def test_a_cancel_is_seen_between_two_rows(text_model: TextModel) -> None:
    answers = iter([False, False, True])
    rows = text_model.encode(["one", "two", "three", "four"])
    with pytest.raises(RunCancelled):
        text_model.run(rows, lambda: next(answers))
    assert not list(answers)


def test_rows_that_may_run_together_run_by_length_and_come_back_in_order(
    text_model: TextModel,
) -> None:
    card = text_model.card.model_copy(update={"rows_singly": False})
    together = replace(text_model, card=card, scales_over_batch=False)
    texts = [f"{'word ' * (1 + number * 7 % 40)}{number}" for number in range(70)]
    runs: list[bool] = []
    vectors = together.run(together.encode(texts), lambda: bool(runs.append(True)))
    assert len(runs) == 3, "70 rows, at most 32 a run"
    alone = text_model.embed(texts)
    norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(alone, axis=1)
    assert ((vectors * alone).sum(1) / norms).min() > 0.95


def test_a_changed_file_of_the_real_model_is_refused(
    repository: ModelRepository, tmp_path: Path
) -> None:
    second = tmp_path / "models" / MODEL / "2"
    shutil.copytree(tmp_path / "models" / MODEL / "1", second)
    with (second / "model.onnx").open("r+b") as file:
        file.seek(1000)
        file.write(b"\x00corrupt\x00")
    with pytest.raises(BadModel, match="differs from its card"):
        repository.load(MODEL, "2")
    assert repository.get(MODEL).card.version == "1"
    assert "differs" in repository.failed[MODEL]


@pytest.mark.parametrize(
    ("name", "version", "field"),
    [("", "", "name"), ("absent", "", "name"), (MODEL, "9", "version")],
)
def test_a_model_or_version_that_is_not_there_is_named(
    repository: ModelRepository, name: str, version: str, field: str
) -> None:
    with pytest.raises(Fault) as caught:
        repository.load(name, version)
    assert (caught.value.code, caught.value.field) == (grpc.StatusCode.NOT_FOUND, field)
