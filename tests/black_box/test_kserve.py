"""KServe v2 at the instance: `inference.GRPCInferenceService` as Triton's clients speak it."""

from __future__ import annotations

import struct

import pytest
from penstock.api.inference.v1 import inference_pb2
from penstock.api.kserve import inference_pb2 as pb

from .calls import TIMEOUT_S, Api, refused
from .configuration import EMBEDDER

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="session")]
NAMES = ("input_ids", "attention_mask", "token_type_ids")
HELLO = ((101, 7592, 102), (1, 1, 1), (0, 0, 0))


def infer(**fields: object) -> pb.ModelInferRequest:
    """`hello`, in the typed contents of the protocol."""
    request = pb.ModelInferRequest(model_name=EMBEDDER, **fields)  # type: ignore[arg-type]
    for name, values in zip(NAMES, HELLO, strict=True):
        tensor = request.inputs.add(name=name, datatype="INT64", shape=[1, 3])
        tensor.contents.int64_contents.extend(values)
    return request


def raw() -> pb.ModelInferRequest:
    """`hello`, as bytes beside the inputs."""
    request = pb.ModelInferRequest(model_name=EMBEDDER, id="raw")
    for name, values in zip(NAMES, HELLO, strict=True):
        request.inputs.add(name=name, datatype="INT64", shape=[1, 3])
        request.raw_input_contents.append(struct.pack("<3q", *values))
    return request


async def test_a_server_and_its_model_are_live_ready_and_described(api: Api) -> None:
    assert (await api.kserve.ServerLive(pb.ServerLiveRequest())).live
    assert (await api.kserve.ServerReady(pb.ServerReadyRequest())).ready
    assert (await api.kserve.ModelReady(pb.ModelReadyRequest(name=EMBEDDER))).ready
    assert not (await api.kserve.ModelReady(pb.ModelReadyRequest(name="other"))).ready
    server = await api.kserve.ServerMetadata(pb.ServerMetadataRequest())
    assert server.name == "penstock"
    assert list(server.extensions) == [
        "model_repository",
        "model_configuration",
        "statistics",
        "binary_tensor_data",
    ]
    model = await api.kserve.ModelMetadata(pb.ModelMetadataRequest(name=EMBEDDER))
    assert (model.name, list(model.versions), model.platform) == (
        EMBEDDER,
        ["1"],
        "onnxruntime_onnx",
    )
    assert [(row.name, row.datatype, list(row.shape)) for row in model.inputs] == [
        (name, "INT64", [-1, -1]) for name in NAMES
    ]
    assert [(row.name, row.datatype, list(row.shape)) for row in model.outputs] == [
        ("sentence_embedding", "FP32", [-1, 384])
    ]


async def test_both_encodings_give_the_vector_of_the_text(api: Api) -> None:
    typed = await api.kserve.ModelInfer(infer(id="typed"), timeout=TIMEOUT_S)
    bytewise = await api.kserve.ModelInfer(raw(), timeout=TIMEOUT_S)
    assert (typed.id, typed.model_name, typed.model_version) == ("typed", EMBEDDER, "1")
    assert bytewise.id == "raw"
    (output,) = typed.outputs
    assert (output.name, output.datatype, list(output.shape)) == (
        "sentence_embedding",
        "FP32",
        [1, 384],
    )
    task = inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=["hello"]))
    answer = await api.inference.Compute(
        inference_pb2.ComputeRequest(task=task), metadata=api.token, timeout=TIMEOUT_S
    )
    wanted = pytest.approx(list(answer.result.embed.embeddings[0].values), abs=1e-6)
    for response in (typed, bytewise):
        (content,) = response.raw_output_contents
        assert struct.unpack("<384f", content) == wanted


async def test_a_stream_answers_in_order_and_goes_on_after_a_failure(api: Api) -> None:
    bad = infer(id="bad")
    del bad.inputs[2]
    call = api.kserve.ModelStreamInfer(iter([infer(id="one"), bad, infer(id="two")]))
    answers = [answer async for answer in call]
    assert [answer.infer_response.id for answer in answers] == ["one", "bad", "two"]
    assert [bool(answer.error_message) for answer in answers] == [False, True, False]


async def test_statistics_count_what_was_asked(api: Api) -> None:
    request = pb.ModelStatisticsRequest(name=EMBEDDER)

    async def counted() -> tuple[int, int]:
        (row,) = (await api.kserve.ModelStatistics(request)).model_stats
        return row.inference_stats.success.count, row.inference_stats.fail.count

    before = await counted()
    await api.kserve.ModelInfer(infer())
    bad = infer()
    del bad.inputs[2]
    await refused(api.kserve.ModelInfer(bad))
    after = await counted()
    assert (after[0] - before[0], after[1] - before[1]) == (1, 1)


async def test_the_repository_is_listed(api: Api) -> None:
    index = await api.kserve.RepositoryIndex(pb.RepositoryIndexRequest())
    rows = {row.name: row for row in index.models}
    assert (rows[EMBEDDER].version, rows[EMBEDDER].state) == ("1", "READY")
    told = await refused(
        api.kserve.RepositoryIndex(pb.RepositoryIndexRequest(repository_name="other"))
    )
    assert told.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"model_name": "other"}, "NOT_FOUND"),
        ({"model_version": "9"}, "NOT_FOUND"),
        ({"model_version": "nine"}, "INVALID_ARGUMENT"),
    ],
)
async def test_an_unknown_model_or_version_is_not_found(
    api: Api, change: dict[str, str], code: str
) -> None:
    request = infer()
    for name, value in change.items():
        setattr(request, name, value)
    assert (await refused(api.kserve.ModelInfer(request))).code == code


async def test_a_bad_tensor_is_the_callers_mistake(api: Api) -> None:
    short = infer()
    short.inputs[0].shape[1] = 2
    odd = infer()
    odd.inputs[0].datatype = "FP99"
    for request in (short, odd):
        assert (await refused(api.kserve.ModelInfer(request))).code == "INVALID_ARGUMENT"


async def test_a_model_that_is_not_there_cannot_be_loaded(api: Api) -> None:
    request = pb.RepositoryModelLoadRequest(model_name="other")
    assert (await refused(api.kserve.RepositoryModelLoad(request))).code == "INTERNAL"
    unload = pb.RepositoryModelUnloadRequest(model_name="other")
    await api.kserve.RepositoryModelUnload(unload)
