"""Run in the peers' environment against a served identity model: python tritonclient_checks.py
HOST:PORT. Prints "all well".
"""

from __future__ import annotations

import asyncio
import queue
import sys

import grpc
import ml_dtypes
import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

KINDS = {
    "FP32": np.float32,
    "FP64": np.float64,
    "FP16": np.float16,
    "INT64": np.int64,
    "INT32": np.int32,
    "INT16": np.int16,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "BOOL": np.bool_,
    "BYTES": np.object_,
}


def values(kind: str) -> np.ndarray:
    if kind == "BYTES":
        return np.array([[b"a", b"", "ø".encode()]], dtype=np.object_)
    return np.array([[1, 0, 1]]).astype(KINDS[kind])


def inputs() -> list[triton.InferInput]:
    made = []
    for kind in KINDS:
        tensor = triton.InferInput(f"in_{kind}", [1, 3], kind)
        tensor.set_data_from_numpy(values(kind))
        made.append(tensor)
    return made


TYPED = {
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "INT64": "int64_contents",
    "INT32": "int_contents",
    "INT16": "int_contents",
    "INT8": "int_contents",
    "UINT8": "uint_contents",
    "BOOL": "bool_contents",
    "BYTES": "bytes_contents",
}


def typed_request(kind: str, model: str) -> service_pb2.ModelInferRequest:
    """A request of one input with typed contents, by the client's own stubs: the client itself
    always sends raw ones.
    """
    request = service_pb2.ModelInferRequest(model_name=model)
    tensor = request.inputs.add(name=f"in_{kind}", datatype=kind, shape=[1, 3])
    getattr(tensor.contents, TYPED[kind]).extend(values(kind).ravel().tolist())
    return request


def check_typed(address: str) -> None:
    """Every datatype typed; FP16 and BF16 are raw only; raw and typed in one request are
    refused.
    """
    with grpc.insecure_channel(address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for kind in TYPED:
            answer = stub.ModelInfer(typed_request(kind, f"one-{kind.lower()}"))
            array = triton.InferResult(answer).as_numpy(f"out_{kind}")
            assert array.tolist() == values(kind).tolist(), kind
        for kind in ("FP16", "BF16"):
            half = service_pb2.ModelInferRequest(model_name=f"one-{kind.lower()}")
            half.inputs.add(
                name=f"in_{kind}", datatype=kind, shape=[1, 3]
            ).contents.fp32_contents.extend([1, 0, 1])
            expect_code(
                lambda request=half: stub.ModelInfer(request), grpc.StatusCode.INVALID_ARGUMENT
            )
        both = typed_request("FP32", "one-fp32")
        both.raw_input_contents.append(np.ones(3, dtype=np.float32).tobytes())
        expect_code(lambda: stub.ModelInfer(both), grpc.StatusCode.INVALID_ARGUMENT)


def expect_code(call: object, code: grpc.StatusCode) -> None:
    try:
        call()
    except grpc.RpcError as error:
        assert error.code() is code, error
    else:
        raise AssertionError(f"{code} was expected")


async def check_aio(address: str) -> None:
    """The client's asynchronous form: unary calls and a stream."""
    async with triton_aio.InferenceServerClient(address) as client:
        answer = await client.infer("same", inputs())
        assert answer.as_numpy("out_INT8").tolist() == [[1, 0, 1]]

        async def requests() -> object:
            for number in range(2):
                yield {"model_name": "same", "inputs": inputs(), "request_id": str(number)}

        seen = [
            (result.get_response().id, error)
            async for result, error in client.stream_infer(requests())
        ]
        assert seen == [("0", None), ("1", None)], seen


def check_bfloat16(client: triton.InferenceServerClient) -> None:
    tensor = triton.InferInput("in_BF16", [1, 3], "BF16")
    tensor.set_data_from_numpy(np.array([[1.5, -2, 3]], dtype=ml_dtypes.bfloat16))
    assert client.infer("one-bf16", [tensor]).as_numpy("out_BF16").astype(np.float32).tolist() == [
        [1.5, -2, 3]
    ]


def expect_refusal(call: object, code: str, words: str) -> None:
    try:
        call()
    except InferenceServerException as error:
        assert code in str(error.status()), error
        assert words in error.message(), error
    else:
        raise AssertionError(f"{words}: was not refused")


def main() -> None:
    client = triton.InferenceServerClient(sys.argv[1])
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("same")
    assert client.get_server_metadata().name == "penstock"
    assert len(client.get_model_metadata("same").inputs) == len(KINDS)
    assert client.get_model_config("same").config.input[0].data_type == 11
    asked = [triton.InferRequestedOutput(f"out_{kind}") for kind in KINDS]
    answer = client.infer("same", inputs(), outputs=asked, request_id="9", client_timeout=20)
    assert answer.get_response().id == "9"
    for kind in KINDS:
        assert answer.as_numpy(f"out_{kind}").tolist() == values(kind).tolist(), kind
    assert client.get_inference_statistics("same").model_stats[0].inference_count == 1
    expect_refusal(lambda: client.infer("nobody", inputs()), "NOT_FOUND", "nobody")
    expect_refusal(
        lambda: client.infer("same", inputs()[:2]), "INVALID_ARGUMENT", "expected 10 inputs"
    )
    wrong = inputs()
    wrong[0] = triton.InferInput("in_FP32", [1, 2], "FP32")
    wrong[0].set_data_from_numpy(np.ones((1, 2), dtype=np.float32))
    expect_refusal(lambda: client.infer("same", wrong), "INVALID_ARGUMENT", "in_FP32")
    wrong[0] = triton.InferInput("in_FP32", [1, 3], "FP16")
    wrong[0].set_data_from_numpy(np.ones((1, 3), dtype=np.float16))
    expect_refusal(lambda: client.infer("same", wrong), "INVALID_ARGUMENT", "in_FP32")
    client.load_model("other")
    assert client.is_model_ready("other", "3")
    index = {row.name: row.state for row in client.get_model_repository_index().models}
    assert (index["same"], index["other"], index["one-bf16"]) == ("READY", "READY", "READY")
    expect_refusal(lambda: client.load_model("nobody"), "INTERNAL", "failed to load 'nobody'")
    client.unload_model("other")
    assert not client.is_model_ready("other")
    answers: queue.Queue[tuple[object, object]] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for number in range(3):
        client.async_stream_infer("same", inputs(), request_id=str(number))
    seen = [answers.get(timeout=10) for _ in range(3)]
    client.stop_stream()
    assert [result.get_response().id for result, error in seen if error is None] == ["0", "1", "2"]
    statistics = client.get_inference_statistics().model_stats
    assert {row.name for row in statistics} >= {"same", "one-bf16"}
    check_bfloat16(client)
    check_typed(sys.argv[1])
    asyncio.run(check_aio(sys.argv[1]))
    client.close()
    sys.stdout.write("all well\n")


if __name__ == "__main__":
    main()
