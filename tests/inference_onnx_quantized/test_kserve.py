"""The Open Inference Protocol (KServe v2) over a real server: by generated stubs, and by an
unmodified tritonclient in its own environment.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
from identity import BFLOAT16, KINDS, write_identity
from penstock.api.common.v1 import common_pb2
from penstock.api.kserve import inference_pb2 as kserve
from penstock.api.kserve import inference_pb2_grpc as kserve_grpc
from penstock.api.orca import orca_load_report_pb2 as orca
from penstock.inference_onnx_quantized.api.inference_service import InferenceServicer
from penstock.inference_onnx_quantized.api.loaded_models import LoadedModels
from penstock.inference_onnx_quantized.api.orca import TRAILER, orca_report
from penstock.inference_onnx_quantized.compute_threads import ComputeThreads, LoadMeter
from penstock.inference_onnx_quantized.repository import ModelRepository
from penstock.inference_onnx_quantized.settings import InferenceSettings
from penstock.kserve.grpc_service import NAME, add_to
from penstock.kserve.inference import DEFAULT_DEADLINE_S, Inference
from penstock.onnx.encoder import TextModel
from penstock.otel.telemetry import NO_TELEMETRY
from penstock.service.clock import SystemClock
from penstock.testkit.server import serving

TOKEN = "the-internal-token"
PEERS = Path(__file__).parents[2] / ".venv-peers" / "bin" / "python"
INVALID, NOT_FOUND, INTERNAL = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.INTERNAL,
)


@dataclass
class Served:
    """A service with the models `same` and `bfloat16` loaded, and `other` on disk."""

    stub: kserve_grpc.GRPCInferenceServiceStub
    address: str
    models: Path
    meter: LoadMeter


@pytest.fixture(params=["open"])
async def served(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Served]:
    write_identity(tmp_path / "models" / "same" / "1", "same")
    write_identity(tmp_path / "models" / "other" / "3", "other", {"FP32": 1})
    write_identity(tmp_path / "models" / "bfloat16" / "1", "bfloat16", BFLOAT16)
    repository = ModelRepository(tmp_path / "models", 1 << 30, TextModel.load)
    repository.load("same")
    repository.load("bfloat16")
    meter, clock = LoadMeter(2), SystemClock()
    threads = ComputeThreads(2, meter, clock)
    settings = InferenceSettings(
        home=tmp_path, max_texts=8, kserve=request.param, kserve_token=TOKEN
    )

    servicer = InferenceServicer(settings, repository, threads, meter, clock, NO_TELEMETRY)
    models = LoadedModels(settings, repository, servicer, clock)
    inference = Inference(models, clock, DEFAULT_DEADLINE_S)
    async with (
        serving([], foreign=[lambda to: add_to(to, inference)], foreign_names=[NAME]) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        yield Served(
            kserve_grpc.GRPCInferenceServiceStub(channel),
            server.address,
            tmp_path / "models",
            meter,
        )
    assert (meter.in_flight, meter.running) == (0, 0)
    threads.close()


def infer_request(
    value: float = 1.5, model: str = "other", **fields: object
) -> kserve.ModelInferRequest:
    made = kserve.ModelInferRequest(model_name=model, **fields)  # type: ignore[arg-type]
    made.inputs.add(name="in_FP32", datatype="FP32", shape=[1, 3])
    made.raw_input_contents.append(np.full(3, value, dtype=np.float32).tobytes())
    return made


async def test_the_server_and_its_models_describe_themselves(served: Served) -> None:
    stub = served.stub
    assert (await stub.ServerLive(kserve.ServerLiveRequest())).live
    assert (await stub.ServerReady(kserve.ServerReadyRequest())).ready
    assert (await stub.ServerMetadata(kserve.ServerMetadataRequest())).name == "penstock"
    assert (await stub.ModelReady(kserve.ModelReadyRequest(name="same", version="1"))).ready
    assert not (await stub.ModelReady(kserve.ModelReadyRequest(name="same", version="2"))).ready
    assert not (await stub.ModelReady(kserve.ModelReadyRequest(name="nobody"))).ready
    about = await stub.ModelMetadata(kserve.ModelMetadataRequest(name="same"))
    assert {(row.name, row.datatype, tuple(row.shape)) for row in about.inputs} >= {
        ("in_BYTES", "BYTES", (-1, 3))
    }
    config = (await stub.ModelConfig(kserve.ModelConfigRequest(name="same"))).config
    assert (config.backend, config.max_batch_size, config.input[0].data_type) == (
        "onnxruntime",
        0,
        kserve.DataType.TYPE_FP32,
    )


async def test_models_are_loaded_and_unloaded(served: Served) -> None:
    stub = served.stub
    index = await stub.RepositoryIndex(kserve.RepositoryIndexRequest())
    assert [(row.name, row.state) for row in index.models] == [
        ("bfloat16", "READY"),
        ("same", "READY"),
        ("other", "UNAVAILABLE"),
    ]
    await stub.RepositoryModelLoad(kserve.RepositoryModelLoadRequest(model_name="other"))
    answer = await stub.ModelInfer(infer_request(2.5, id="a"))
    assert (answer.id, answer.model_version) == ("a", "3")
    assert np.frombuffer(answer.raw_output_contents[0], dtype=np.float32).tolist() == [2.5] * 3
    await stub.RepositoryModelUnload(kserve.RepositoryModelUnloadRequest(model_name="other"))
    await stub.RepositoryModelUnload(kserve.RepositoryModelUnloadRequest(model_name="other"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ModelInfer(infer_request())
    assert caught.value.code() is NOT_FOUND
    only = await stub.RepositoryIndex(kserve.RepositoryIndexRequest(ready=True))
    assert [row.name for row in only.models] == ["bfloat16", "same"]


@pytest.mark.parametrize(
    ("method", "request_", "code", "words"),
    [
        ("ModelInfer", infer_request(model="nobody"), NOT_FOUND, "unknown model: 'nobody'"),
        ("ModelInfer", infer_request(model="same", model_version="9"), NOT_FOUND, "version 9"),
        (
            "ModelInfer",
            infer_request(model="same", model_version="x"),
            INVALID,
            "version string 'x'",
        ),
        ("ModelInfer", infer_request(model="same"), INVALID, "expected 10 inputs but got 1"),
        ("ModelMetadata", kserve.ModelMetadataRequest(name="nobody"), NOT_FOUND, "nobody"),
        ("ModelStatistics", kserve.ModelStatisticsRequest(name="nobody"), NOT_FOUND, "nobody"),
        (
            "RepositoryModelLoad",
            kserve.RepositoryModelLoadRequest(model_name="nobody"),
            INTERNAL,
            "failed to poll",
        ),
        (
            "RepositoryModelLoad",
            kserve.RepositoryModelLoadRequest(model_name="../same"),
            INVALID,
            "name",
        ),
        (
            "RepositoryIndex",
            kserve.RepositoryIndexRequest(repository_name="x"),
            INVALID,
            "repository_name",
        ),
    ],
)
async def test_codes_and_messages_are_those_of_triton(
    served: Served, method: str, request_: object, code: grpc.StatusCode, words: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await getattr(served.stub, method)(request_)
    assert caught.value.code() is code
    assert words in (caught.value.details() or "")


async def test_a_corrupt_new_model_leaves_the_others_serving(served: Served) -> None:
    (served.models / "other" / "3" / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.stub.RepositoryModelLoad(kserve.RepositoryModelLoadRequest(model_name="other"))
    assert caught.value.code() is INTERNAL
    assert "checksum" in (caught.value.details() or "")
    rows = (await served.stub.RepositoryIndex(kserve.RepositoryIndexRequest())).models
    assert [(row.name, row.state, "checksum" in row.reason) for row in rows] == [
        ("bfloat16", "READY", False),
        ("same", "READY", False),
        ("other", "UNAVAILABLE", True),
    ]


async def test_a_stream_goes_on_after_a_bad_request(served: Served) -> None:
    await served.stub.RepositoryModelLoad(kserve.RepositoryModelLoadRequest(model_name="other"))
    call = served.stub.ModelStreamInfer(
        iter(
            [
                infer_request(1, id="a"),
                infer_request(model="nobody", id="b"),
                infer_request(3, id="c"),
            ]
        )
    )
    answers = [answer async for answer in call]
    assert [(answer.infer_response.id, bool(answer.error_message)) for answer in answers] == [
        ("a", False),
        ("b", True),
        ("c", False),
    ]
    stats = (
        await served.stub.ModelStatistics(kserve.ModelStatisticsRequest(name="other"))
    ).model_stats[0]
    assert (stats.inference_count, stats.inference_stats.success.count, stats.version) == (
        2,
        2,
        "3",
    )
    assert stats.inference_stats.success.ns >= stats.inference_stats.compute_infer.ns > 0


async def test_bfloat16_goes_in_and_comes_out_unchanged(served: Served) -> None:
    halves = np.array([0x3FC0, 0xC000, 0x4040], dtype=np.uint16).tobytes()
    request = kserve.ModelInferRequest(model_name="bfloat16")
    request.inputs.add(name="in_BF16", datatype="BF16", shape=[1, 3])
    request.raw_input_contents.append(halves)
    answer = await served.stub.ModelInfer(request)
    assert (answer.outputs[0].datatype, answer.raw_output_contents[0]) == ("BF16", halves)
    about = await served.stub.ModelMetadata(kserve.ModelMetadataRequest(name="bfloat16"))
    assert about.inputs[0].datatype == "BF16"


async def test_models_are_swapped_under_load_without_a_lost_request(served: Served) -> None:
    await served.stub.RepositoryModelLoad(kserve.RepositoryModelLoadRequest(model_name="other"))
    versions: set[str] = set()
    done = False

    async def ask() -> None:
        while not done:
            versions.add((await served.stub.ModelInfer(infer_request())).model_version)

    callers = [asyncio.create_task(ask()) for _ in range(8)]
    for version in ("4", "5", "10"):
        write_identity(served.models / "other" / version, "other", {"FP32": 1})
        await served.stub.RepositoryModelLoad(kserve.RepositoryModelLoadRequest(model_name="other"))
        assert (await served.stub.ModelInfer(infer_request())).model_version == version
    done = True
    await asyncio.gather(*callers)
    assert {"10"} <= versions <= {"3", "4", "5", "10"}


async def test_the_load_report_is_in_the_trailer(served: Served) -> None:
    """Seen on the wire: gRPC's own C library keeps this trailer for its balancers and shows it to
    no Python client.
    """
    await served.stub.RepositoryModelLoad(kserve.RepositoryModelLoadRequest(model_name="other"))
    seen = bytearray()
    host, _, port = served.address.rpartition(":")

    async def relay(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, into: bytearray | None
    ) -> None:
        while data := await reader.read(65536):
            if into is not None:
                into += data
            writer.write(data)
        writer.close()

    async def between(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        await asyncio.gather(
            relay(reader, far_writer, None), relay(far_reader, writer, seen), return_exceptions=True
        )

    wire = await asyncio.start_server(between, "127.0.0.1", 0)
    async with grpc.aio.insecure_channel(
        f"127.0.0.1:{wire.sockets[0].getsockname()[1]}"
    ) as channel:
        await kserve_grpc.GRPCInferenceServiceStub(channel).ModelInfer(infer_request())
    wire.close()
    assert TRAILER.encode() in seen


def test_the_load_report_has_the_terms_of_orca() -> None:
    load = common_pb2.LoadReport(
        in_flight=3, queued=1, concurrency=4, service_ms=2.5, utilization=0.5
    )
    report = orca.OrcaLoadReport.FromString(orca_report(load).SerializeToString())
    assert (report.application_utilization, report.utilization["batch_fill"]) == (0.5, 0.75)
    assert dict(report.named_metrics) == {
        "in_flight": 3,
        "queued": 1,
        "concurrency": 4,
        "service_ms": 2.5,
    }


@pytest.mark.parametrize("served", ["token"], indirect=True)
async def test_where_a_token_is_needed_other_callers_are_refused(served: Served) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.stub.ModelInfer(infer_request())
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    request = kserve.ModelStatisticsRequest()
    assert (
        await served.stub.ModelStatistics(request, metadata=[("penstock-token", TOKEN)])
    ).model_stats


@pytest.mark.parametrize(
    ("listen", "kind", "needed"),
    [
        ("127.0.0.1:1", "auto", False),
        ("unix:/tmp/x", "auto", False),
        ("[::1]:1", "auto", False),
        ("0.0.0.0:1", "auto", True),
        ("0.0.0.0:1", "open", False),
        ("127.0.0.1:1", "token", True),
    ],
)
def test_callers_from_other_machines_need_a_token(
    listen: str, kind: str, needed: bool, tmp_path: Path
) -> None:
    settings = InferenceSettings(home=tmp_path, listen=listen, kserve=kind, kserve_token=TOKEN)  # type: ignore[arg-type]
    assert settings.kserve_needs_token() is needed


async def test_an_unmodified_tritonclient_is_served(served: Served) -> None:
    if not PEERS.exists():
        pytest.skip("the peers' environment is not here; `make peers` makes it")
    for kind, number in {**KINDS, **BFLOAT16}.items():
        name = f"one-{kind.lower()}"
        write_identity(served.models / name / "1", name, {kind: number})
        await served.stub.RepositoryModelLoad(kserve.RepositoryModelLoadRequest(model_name=name))
    script = Path(__file__).with_name("tritonclient_checks.py")
    process = await asyncio.create_subprocess_exec(
        str(PEERS),
        str(script),
        served.address,
        env={},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()
    if b"No module named 'tritonclient'" in errors:
        pytest.skip("the peers' environment has no tritonclient; `make peers` installs it")
    assert process.returncode == 0, errors.decode()
    assert out.decode().strip().endswith("all well")
