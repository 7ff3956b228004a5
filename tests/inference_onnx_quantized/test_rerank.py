"""`rerank` on local models: by a model of pairs, or by the cosines of embeddings."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_onnx_quantized.api.inference_service import InferenceServicer
from penstock.inference_onnx_quantized.compute_threads import ComputeThreads, LoadMeter
from penstock.inference_onnx_quantized.repository import ModelRepository
from penstock.inference_onnx_quantized.settings import InferenceSettings
from penstock.onnx.card import ModelCard, checksum, write_card
from penstock.onnx.encoder import TextModel
from penstock.otel.telemetry import NO_TELEMETRY
from penstock.rpc.auth import internal
from penstock.rpc.call import Call
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.errors import Fault
from penstock.rpc.peers.stream import Peer
from penstock.service.clock import SystemClock
from penstock.testkit.server import TOKEN, peer_over

SERVICE = pb.DESCRIPTOR.services_by_name["InferenceService"]
EMBEDDER = "all-MiniLM-L6-v2"
QUERY = "how do I get my money back"
DOCUMENTS = ("Opening hours of our shops", "Refunds are paid within a week", "We ship to Norway")


def write_pair_model(folder: Path, tokenizer: Path, width: int) -> None:
    """Write a model of pairs whose outputs are the mean token id, scaled, plus 0, 1, 2, …"""
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["ids"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["ids"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Div", ["mean", "scale"], ["small"]),
        helper.make_node("Add", ["small", "offsets"], ["logits"]),
    ]
    inputs = [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["rows", "length"])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", width])]
    constants = [
        numpy_helper.from_array(np.array([10_000.0], np.float32), "scale"),
        numpy_helper.from_array(np.arange(width, dtype=np.float32), "offsets"),
    ]
    graph = helper.make_graph(nodes, "pairs", inputs, outputs, initializer=constants)
    folder.mkdir(parents=True)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        str(folder / "model.onnx"),
    )
    shutil.copy(tokenizer, folder / "tokenizer.json")
    card = ModelCard(
        name=folder.parent.name,
        version=folder.name,
        tasks=("rerank",),
        model="model.onnx",
        tokenizer="tokenizer.json",
        max_input_tokens=64,
        files={name: checksum(folder / name) for name in ("model.onnx", "tokenizer.json")},
    )
    write_card(folder, card)


@pytest.fixture
async def peer(tmp_path: Path, home: Path) -> AsyncIterator[Peer]:
    """A service with an embedder and models of pairs with outputs of three widths."""
    models = tmp_path / "models"
    shutil.copytree(home / "models" / EMBEDDER, models / EMBEDDER)
    repository = ModelRepository(models, 1 << 30, TextModel.load)
    repository.load(EMBEDDER)
    for width in (1, 2, 3):
        tokenizer = models / EMBEDDER / "1" / "tokenizer.json"
        write_pair_model(models / f"pairs{width}" / "1", tokenizer, width)
        repository.load(f"pairs{width}")
    clock, meter = SystemClock(), LoadMeter(2)
    servicer = InferenceServicer(
        InferenceSettings(home=tmp_path, max_texts=8),
        repository,
        ComputeThreads(2, meter, clock),
        meter,
        clock,
        NO_TELEMETRY,
    )
    async with peer_over("unix-stream", Endpoint(SERVICE, servicer, internal(TOKEN))) as peer:
        yield peer


def rerank(query: str = QUERY, *documents: str, top_n: int = 0) -> pb.Task:
    task = pb.RerankTask(query=query, documents=documents or DOCUMENTS, top_n=top_n)
    return pb.Task(rerank=task)


async def result_of(peer: Peer, model: str, task: pb.Task) -> pb.TaskResult:
    request = pb.ComputeRequest(model=model, task=task)
    answer: pb.ComputeResponse = await peer.call("Compute", request, Call())
    return answer.result


async def test_an_embedder_ranks_by_cosine(peer: Peer) -> None:
    result = await result_of(peer, EMBEDDER, rerank())
    assert result.rerank.ranking[0].index == 1
    embedded = await result_of(
        peer, EMBEDDER, pb.Task(embed=pb.EmbedTask(texts=[QUERY, *DOCUMENTS]))
    )
    vectors = np.array([one.values for one in embedded.embed.embeddings])
    for one in result.rerank.ranking:
        assert one.score == pytest.approx(vectors[0] @ vectors[1 + one.index], abs=1e-5)
    assert result.usage.input_tokens == embedded.usage.input_tokens
    best = await result_of(peer, EMBEDDER, rerank(top_n=1))
    assert list(best.rerank.ranking) == [result.rerank.ranking[0]]


@pytest.mark.parametrize("width", [1, 2])
async def test_a_model_of_pairs_ranks_by_the_probability_that_a_pair_fits(
    peer: Peer, home: Path, width: int
) -> None:
    result = await result_of(peer, f"pairs{width}", rerank())
    model = TextModel.load(home / "models" / EMBEDDER / "1")
    pairs = model.encode_pairs([(QUERY, document) for document in DOCUMENTS])
    logits = np.array([np.mean(ids) / 10_000 for ids, _ in pairs])
    # With two outputs, the second is larger by 1 whatever the pair.
    expected = 1 / (1 + np.exp(-(logits if width == 1 else np.ones(3))))
    scores = {one.index: one.score for one in result.rerank.ranking}
    assert [scores[index] for index in range(3)] == pytest.approx(list(expected), abs=1e-5)
    order = [one.score for one in result.rerank.ranking]
    assert order == sorted(order, reverse=True)
    assert result.usage.input_tokens == sum(len(ids) for ids, _ in pairs)


@pytest.mark.parametrize(
    ("model", "task", "field"),
    [
        (EMBEDDER, rerank(" "), "task.rerank.query"),
        (EMBEDDER, rerank("long " * 300), "task.rerank.query"),
        ("pairs1", rerank("long " * 64), "task.rerank.query"),
        (EMBEDDER, rerank("x" * 40_000), "task.rerank.query"),
        (EMBEDDER, rerank(QUERY, "a", " "), "task.rerank.documents[1]"),
        ("pairs1", rerank(QUERY, *["x"] * 9), "task.rerank.documents"),
        ("pairs1", rerank(QUERY, "short", "long " * 64), "task.rerank.documents[1]"),
        ("pairs1", pb.Task(embed=pb.EmbedTask(texts=["a"])), "task"),
    ],
)
async def test_what_cannot_be_ranked_is_refused_by_its_field(
    peer: Peer, model: str, task: pb.Task, field: str
) -> None:
    with pytest.raises(Fault) as refused:
        await result_of(peer, model, task)
    assert (refused.value.code, refused.value.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)


async def test_a_model_of_other_outputs_is_no_model_of_pairs(peer: Peer) -> None:
    with pytest.raises(Fault, match="1 or 2 numbers a pair, not 3") as refused:
        await result_of(peer, "pairs3", rerank())
    assert refused.value.code is grpc.StatusCode.FAILED_PRECONDITION
