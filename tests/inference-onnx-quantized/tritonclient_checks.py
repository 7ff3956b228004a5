"""Run in the peers' environment against a served identity model: python tritonclient_checks.py HOST:PORT. Prints "all well"."""

from __future__ import annotations

import queue
import sys

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

KINDS = {
    "FP32": np.float32, "FP64": np.float64, "FP16": np.float16, "INT64": np.int64, "INT32": np.int32,
    "INT16": np.int16, "INT8": np.int8, "UINT8": np.uint8, "BOOL": np.bool_, "BYTES": np.object_,
}  # fmt: skip


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


def refused(call: object, code: str, words: str) -> None:
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
    refused(lambda: client.infer("nobody", inputs()), "NOT_FOUND", "nobody")
    refused(lambda: client.infer("same", inputs()[:2]), "INVALID_ARGUMENT", "expected 10 inputs")
    wrong = inputs()
    wrong[0] = triton.InferInput("in_FP32", [1, 2], "FP32")
    wrong[0].set_data_from_numpy(np.ones((1, 2), dtype=np.float32))
    refused(lambda: client.infer("same", wrong), "INVALID_ARGUMENT", "in_FP32")
    wrong[0] = triton.InferInput("in_FP32", [1, 3], "FP16")
    wrong[0].set_data_from_numpy(np.ones((1, 3), dtype=np.float16))
    refused(lambda: client.infer("same", wrong), "INVALID_ARGUMENT", "in_FP32")
    client.load_model("other")
    assert client.is_model_ready("other", "3")
    assert {row.name for row in client.get_model_repository_index().models} == {"same", "other"}
    client.unload_model("other")
    assert not client.is_model_ready("other")
    answers: queue.Queue[tuple[object, object]] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for number in range(3):
        client.async_stream_infer("same", inputs(), request_id=str(number))
    seen = [answers.get(timeout=10) for _ in range(3)]
    client.stop_stream()
    assert [result.get_response().id for result, error in seen if error is None] == ["0", "1", "2"]
    client.close()
    sys.stdout.write("all well\n")


if __name__ == "__main__":
    main()
