"""The inference service on the real model, over a real server."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
from identity import write_identity, write_nan
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_onnx_quantized.api.inference_service import InferenceServicer
from penstock.inference_onnx_quantized.compute_threads import ComputeThreads
from penstock.inference_onnx_quantized.load_meter import LoadMeter
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
from penstock.testkit.server import TOKEN, peer_over

SERVICE = pb.DESCRIPTOR.services_by_name["InferenceService"]
MODEL = "all-MiniLM-L6-v2"


@pytest.fixture(scope="session")
def loaded(home: Path) -> TextModel:
    return TextModel.load(home / "models" / MODEL / "1")


@pytest.fixture
def repository(tmp_path: Path, home: Path) -> ModelRepository:
    shutil.copytree(home / "models" / MODEL, tmp_path / "models" / MODEL)
    repository = ModelRepository(tmp_path / "models", 1 << 30, TextModel.load)
    repository.load(MODEL)
    return repository


@pytest.fixture
async def peer(repository: ModelRepository, tmp_path: Path) -> AsyncIterator[Peer]:
    meter = LoadMeter(2)
    runner = ComputeThreads(2, meter, SystemClock())
    settings = InferenceSettings(home=tmp_path, max_texts=8, max_tensor_bytes=8 << 10)
    servicer = InferenceServicer(settings, repository, runner, meter, SystemClock(), NO_TELEMETRY)
    async with peer_over("unix-stream", Endpoint(SERVICE, servicer, internal(TOKEN))) as connected:
        yield connected
    assert (meter.in_flight, meter.running) == (0, 0)
    runner.close()


def embed(*texts: str) -> pb.Task:
    return pb.Task(embed=pb.EmbedTask(texts=texts))


async def ask(peer: Peer, task: pb.Task, model: str = "") -> pb.ComputeResponse:
    answer: pb.ComputeResponse = await peer.call(
        "Compute", pb.ComputeRequest(model=model, task=task), Call()
    )
    return answer


async def refused(peer: Peer, task: pb.Task, model: str = "") -> Fault:
    with pytest.raises(Fault) as caught:
        await ask(peer, task, model)
    return caught.value


async def test_like_texts_have_like_vectors(peer: Peer) -> None:
    answer = await ask(
        peer, embed("how do I reset my password", "I forgot my password", "the weather in Oslo")
    )
    a, b, c = (np.array(item.values) for item in answer.result.embed.embeddings)
    assert a.shape == (384,)
    assert abs(np.linalg.norm(a) - 1) < 1e-3
    assert a @ b > 0.6 > a @ c
    assert answer.result.usage.input_tokens > 10
    assert answer.result.compute_ms > 0
    assert answer.load.concurrency == 2


async def test_an_answer_does_not_depend_on_its_neighbours(peer: Peer) -> None:
    alone = (await ask(peer, embed("a lease that ends in autumn"))).result.embed.embeddings[0]
    texts = ["x", "a lease that ends in autumn", "a much longer text " * 20]
    assert (await ask(peer, embed(*texts))).result.embed.embeddings[1] == alone


async def test_labels_by_example(peer: Peer) -> None:
    examples = [
        pb.LabelledExample(label="refund", text="give me my money back"),
        pb.LabelledExample(label="refund", text="I want a refund"),
        pb.LabelledExample(label="login", text="I cannot sign in"),
    ]
    task = pb.Task(
        classify=pb.ClassifyTask(texts=["please return what I paid"], examples=examples, top_k=2)
    )
    labels = (await ask(peer, task)).result.classify.classifications[0].labels
    assert [label.label for label in labels] == ["refund", "login"]
    assert sum(label.score for label in labels) == pytest.approx(1, abs=1e-4)


async def test_raw_tensors(peer: Peer, loaded: TextModel) -> None:
    ids, types = loaded.encode(["hello"])[0]
    inputs = [
        pb.Tensor(
            name=name,
            datatype="INT64",
            shape=[1, len(ids)],
            data=np.array(values, dtype=np.int64).tobytes(),
        )
        for name, values in (
            ("input_ids", ids),
            ("attention_mask", [1] * len(ids)),
            ("token_type_ids", types),
        )
    ]
    output = (await ask(peer, pb.Task(infer=pb.InferTask(inputs=inputs)))).result.infer.outputs[0]
    assert (output.name, output.datatype, list(output.shape)) == (
        "sentence_embedding",
        "FP32",
        [1, 384],
    )
    assert np.allclose(
        np.frombuffer(output.data, dtype=np.float32), loaded.embed(["hello"])[0], atol=1e-6
    )


GOOD = np.ones((1, 3), dtype=np.int64).tobytes()


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
        (pb.Task(infer=pb.InferTask(inputs=[pb.Tensor(name="nope")])), "task.infer.inputs[0].name"),
        (
            pb.Task(infer=pb.InferTask(inputs=[pb.Tensor(name="input_ids", datatype="INT65")])),
            "task.infer.inputs[0].datatype",
        ),
        (
            pb.Task(
                infer=pb.InferTask(
                    inputs=[pb.Tensor(name="input_ids", datatype="INT64", shape=[1, 4], data=GOOD)]
                )
            ),
            "task.infer.inputs[0].data",
        ),
        (
            pb.Task(
                infer=pb.InferTask(
                    inputs=[pb.Tensor(name="input_ids", datatype="INT64", shape=[3], data=GOOD)]
                )
            ),
            "task.infer.inputs[0].shape",
        ),
        (
            pb.Task(
                infer=pb.InferTask(
                    inputs=[pb.Tensor(name="input_ids", datatype="INT64", shape=[1, 3], data=GOOD)]
                )
            ),
            "task.infer.inputs",
        ),
    ],
)
async def test_what_cannot_be_computed_names_its_field(
    peer: Peer, task: pb.Task, field: str
) -> None:
    fault = await refused(peer, task)
    assert (fault.code, fault.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    assert (await ask(peer, embed("still here"))).result.embed.embeddings


async def test_what_a_broken_model_says_never_leaves(
    peer: Peer, repository: ModelRepository, tmp_path: Path
) -> None:
    """Its weights give NaN; the other model goes on."""
    folder = tmp_path / "models" / "broken" / "1"
    write_nan(folder, tmp_path / "models" / MODEL / "1" / "tokenizer.json")
    repository.load("broken")
    fault = await refused(peer, embed("hello"), "broken")
    assert (fault.code, "NaN" in fault.message) == (grpc.StatusCode.INTERNAL, True)
    assert (await ask(peer, embed("hello"))).result.embed.embeddings


async def test_tensors_have_a_limit_in_and_out(
    peer: Peer, repository: ModelRepository, tmp_path: Path
) -> None:
    write_identity(tmp_path / "models" / "same" / "1", "same", {"FP32": 1})
    repository.load("same")
    data = np.ones((1 << 10, 3), dtype=np.float32)
    tensor = pb.Tensor(name="in_FP32", datatype="FP32", shape=data.shape, data=data.tobytes())
    fault = await refused(peer, pb.Task(infer=pb.InferTask(inputs=[tensor])), "same")
    assert (fault.code, fault.field) == (grpc.StatusCode.INVALID_ARGUMENT, "task.infer.inputs")


async def test_a_model_loads_beside_the_answers(
    peer: Peer, repository: ModelRepository, tmp_path: Path
) -> None:
    """Over the wire, while callers ask: each is answered, by the old version or the new one."""
    shutil.copytree(tmp_path / "models" / MODEL / "1", tmp_path / "models" / MODEL / "2")
    asked = [asyncio.create_task(ask(peer, embed(f"text {number}"))) for number in range(24)]
    loaded = await peer.call("LoadModel", pb.LoadModelRequest(name=MODEL), Call())
    after = await ask(peer, embed("after"))
    revisions = {(await task).result.revision[0] for task in asked}
    assert loaded.model.revision.startswith("2-")
    assert after.result.revision.startswith("2-")
    assert revisions <= {"1", "2"}


async def test_an_unknown_model_is_not_found(peer: Peer) -> None:
    fault = await refused(peer, embed("x"), "gpt-9")
    assert (fault.code, fault.field) == (grpc.StatusCode.NOT_FOUND, "model")


async def test_each_member_of_a_batch_has_its_own_fate(peer: Peer) -> None:
    good = Call(deadline_s=time.monotonic() + 30).to_context(time.monotonic())
    late = Call(deadline_s=0).to_context(time.monotonic())
    members = [
        pb.BatchMember(context=good, task=embed("one")),
        pb.BatchMember(context=good, task=embed("")),
        pb.BatchMember(context=late, task=embed("two")),
    ]
    stream = peer.stream("ComputeBatch", pb.ComputeBatchRequest(members=members), Call())
    codes = {row.index: row.status.code async for part in stream for row in part.results}
    assert codes == {
        0: 0,
        1: grpc.StatusCode.INVALID_ARGUMENT.value[0],
        2: grpc.StatusCode.DEADLINE_EXCEEDED.value[0],
    }


async def test_a_cancelled_task_stops_at_the_next_row(peer: Peer) -> None:
    tasks = [asyncio.create_task(ask(peer, embed(*["word " * 200] * 8))) for _ in range(4)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (await ask(peer, embed("after"))).result.embed.embeddings


def test_cancel_is_asked_between_rows(loaded: TextModel) -> None:
    answers = iter([False, False, True])
    with pytest.raises(RunCancelled):
        loaded.run(loaded.encode(["one", "two", "three", "four"]), lambda: next(answers))
    assert not list(answers)


def test_rows_of_like_length_go_together(loaded: TextModel) -> None:
    """Where rows may share a run: sorted by length, 32 at a time, answers in the order of the
    questions.
    """
    together = replace(loaded, card=loaded.card.model_copy(update={"rows_singly": False}))
    texts = [f"{'word ' * (1 + number * 7 % 40)}{number}" for number in range(70)]
    asked: list[bool] = []
    vectors = together.run(together.encode(texts), lambda: bool(asked.append(True)))
    assert len(asked) == 3
    alone = loaded.embed(texts)
    cosines = (
        (vectors * alone).sum(1) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(alone, axis=1)
    )
    assert cosines.min() > 0.95


def test_a_changed_file_is_refused_and_the_old_version_serves(
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
    ("name", "version"),
    [("../secrets", ""), (MODEL, "../../x"), ("", ""), ("absent", ""), (MODEL, "9")],
)
def test_names_that_lead_out_or_nowhere_are_refused(
    repository: ModelRepository, name: str, version: str
) -> None:
    with pytest.raises(Fault) as caught:
        repository.load(name, version)
    assert caught.value.field in ("name", "version")


def test_the_least_recently_used_model_leaves(tmp_path: Path, home: Path) -> None:
    for name in ("a", "b", "c"):
        shutil.copytree(home / "models" / MODEL, tmp_path / name)
    size = 24 << 20
    repository = ModelRepository(tmp_path, 2 * size, TextModel.load)
    for name in ("a", "b"):
        repository.load(name)
    repository.get("a")
    repository.load("c")
    assert {name for name in ("a", "b", "c") if _has(repository, name)} == {"a", "c"}
    with pytest.raises(BadModel, match="memory budget"):
        ModelRepository(tmp_path, 1000, TextModel.load).load("a")


def _has(repository: ModelRepository, name: str) -> bool:
    try:
        repository.get(name)
    except Fault:
        return False
    return True
