"""An unmodified tritonclient, over gRPC and HTTP, in the peers' environment.

Its argument is a target as JSON: addresses, headers, model. It prints how many cases it ran, which
failed and why.
"""

from __future__ import annotations

import importlib.metadata
import json
import queue
import sys
from typing import Any

import numpy as np
import tritonclient.grpc as triton_grpc  # type: ignore[import-not-found]
import tritonclient.http as triton_http  # type: ignore[import-not-found]
from tritonclient.utils import InferenceServerException  # type: ignore[import-not-found]

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUT, WIDTH = "sentence_embedding", 384
NAMES = (
    "server_lives",
    "model_is_ready",
    "metadata_is_read",
    "rows_are_inferred",
    "rows_are_independent",
    "time_limit_is_taken",
    "refusals_are_told",
    "statistics_are_read",
    "index_is_read",
    "stream_is_answered",
    "json_is_taken",
    "packed_bodies_are_taken",
    "requests_run_side_by_side",
)
"""The cases; a transport leaves out those that it does not have."""
IDS = [[101, 7592, 102], [101, 2088, 102]]


class Cases:
    """The cases over one of the client's two modules."""

    def __init__(self, module: Any, address: str, target: dict[str, Any], **how: int) -> None:
        self.module = module
        self.client = module.InferenceServerClient(address, **how)
        self.model = target["model"]
        self._headers = target["headers"]

    @property
    def with_key(self) -> dict[str, Any]:
        """The credentials, anew for each call: the client writes into what it is given."""
        return {"headers": dict(self._headers)} if self._headers else {}

    def inputs(self, rows: list[list[int]], **how: bool) -> list[Any]:
        ids = np.array(rows, dtype=np.int64)
        values = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "token_type_ids": np.zeros_like(ids),
        }
        made = []
        for name in INPUTS:
            tensor = self.module.InferInput(name, list(ids.shape), "INT64")
            tensor.set_data_from_numpy(values[name], **how)
            made.append(tensor)
        return made

    def infer(self, rows: list[list[int]], how: Any = None, **fields: Any) -> Any:
        return self.client.infer(
            self.model, self.inputs(rows, **(how or {})), **fields, **self.with_key
        )

    def server_lives(self) -> None:
        assert self.client.is_server_live() and self.client.is_server_ready()

    def model_is_ready(self) -> None:
        assert self.client.is_model_ready(self.model, **self.with_key)
        assert not self.client.is_model_ready("nobody", **self.with_key)

    def metadata_is_read(self) -> None:
        assert self.client.get_server_metadata()
        told = self.client.get_model_metadata(self.model, **self.with_key)
        inputs = told["inputs"] if isinstance(told, dict) else told.inputs
        assert len(inputs) == len(INPUTS)
        assert self.client.get_model_config(self.model, **self.with_key)

    def rows_are_inferred(self) -> None:
        asked = [self.module.InferRequestedOutput(OUTPUT)]
        answer = self.infer(IDS, outputs=asked, request_id="9")
        assert answer.as_numpy(OUTPUT).shape == (2, WIDTH)
        response = answer.get_response()
        assert (response["id"] if isinstance(response, dict) else response.id) == "9"

    def rows_are_independent(self) -> None:
        together = self.infer(IDS).as_numpy(OUTPUT)
        for index, row in enumerate(IDS):
            assert np.array_equal(together[index], self.infer([row]).as_numpy(OUTPUT)[0])

    def time_limit_is_taken(self) -> None:
        assert self.infer(IDS, timeout=20_000_000).as_numpy(OUTPUT) is not None

    def refusals_are_told(self) -> None:
        for model, inputs in (("nobody", self.inputs(IDS)), (self.model, self.inputs(IDS)[:2])):
            try:
                self.client.infer(model, inputs, **self.with_key)
            except InferenceServerException as error:
                assert "nobody" in error.message() or "expected 3 inputs" in error.message()
            else:
                raise AssertionError("was not refused")

    def statistics_are_read(self) -> None:
        told = self.client.get_inference_statistics(self.model, **self.with_key)
        rows = told["model_stats"] if isinstance(told, dict) else told.model_stats
        assert len(rows) == 1

    def index_is_read(self) -> None:
        told = self.client.get_model_repository_index(**self.with_key)
        rows = told if isinstance(told, list) else told.models
        assert rows


class GrpcCases(Cases):
    """And a stream."""

    def stream_is_answered(self) -> None:
        answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
        self.client.start_stream(
            lambda result, error: answers.put((result, error)), **self.with_key
        )
        for number in range(4):
            self.client.async_stream_infer(
                self.model,
                self.inputs(IDS),
                request_id=str(number),
                enable_empty_final_response=True,
            )
        seen = [answers.get(timeout=20) for _ in range(4)]
        self.client.stop_stream()
        responses = [result.get_response() for result, error in seen if error is None]
        assert [each.id for each in responses] == ["0", "1", "2", "3"]
        assert all(each.parameters["triton_final_response"].bool_param for each in responses)


class HttpCases(Cases):
    """And its forms of bodies."""

    def json_is_taken(self) -> None:
        asked = [self.module.InferRequestedOutput(OUTPUT, binary_data=False)]
        as_json = self.infer(IDS, {"binary_data": False}, outputs=asked).as_numpy(OUTPUT)
        assert np.array_equal(as_json, self.infer(IDS).as_numpy(OUTPUT))

    def packed_bodies_are_taken(self) -> None:
        for algorithm in ("gzip", "deflate"):
            answer = self.infer(
                IDS,
                request_compression_algorithm=algorithm,
                response_compression_algorithm=algorithm,
            )
            assert answer.as_numpy(OUTPUT).shape == (2, WIDTH)

    def requests_run_side_by_side(self) -> None:
        waiting = [
            self.client.async_infer(self.model, self.inputs(IDS), **self.with_key) for _ in range(4)
        ]
        assert all(each.get_result().as_numpy(OUTPUT).shape == (2, WIDTH) for each in waiting)


def main() -> None:
    """Run all cases and print what came of them."""
    target = json.loads(sys.argv[1])
    failures: dict[str, str] = {}
    count = 0
    for label, cases in (
        ("tritonclient.grpc", GrpcCases(triton_grpc, target["grpc"], target)),
        ("tritonclient.http", HttpCases(triton_http, target["http"], target, concurrency=4)),
    ):
        for name in NAMES:
            if not hasattr(cases, name):
                continue
            count += 1
            try:
                getattr(cases, name)()
            except Exception as error:
                failures[f"{label}: {name}"] = f"{type(error).__name__} {error}"
        cases.client.close()
    version = importlib.metadata.version("tritonclient")
    print(json.dumps({"version": version, "cases": count, "failures": failures}))


if __name__ == "__main__":
    main()
