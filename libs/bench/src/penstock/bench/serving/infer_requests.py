"""KServe v2 requests of one text or of a whole batch, and a server to send them to."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from penstock.api.kserve import inference_pb2 as kserve
from penstock.api.kserve import inference_pb2_grpc as kserve_grpc
from penstock.bench.harness.data_sets import banking77
from penstock.bench.harness.load import LoadResult, closed_loop
from penstock.bench.harness.options import Options
from penstock.models.samples import SAMPLE_TEXTS
from penstock.onnx.encoder import Floats, TextModel

TOKENS, BATCH = 16, 32
MAX_REQUESTS = 256
Requests = list[kserve.ModelInferRequest]
"""Requests in which the name of the model is left open."""


@dataclass(frozen=True)
class Server:
    """A server to call: its stub, and the name of its copy of the model."""

    stub: kserve_grpc.GRPCInferenceServiceStub
    model: str

    async def load(self, requests: Requests, callers: int, seconds: float) -> LoadResult:
        """Load the server with these requests."""
        named = [self._named(request) for request in requests]
        return await closed_loop(
            lambda number: self.stub.ModelInfer(named[number % len(named)]), callers, seconds
        )

    async def embeddings(self, requests: Requests, at_once: int) -> list[Floats]:
        """The first output of each request; so many requests are in flight at a time."""
        found: list[Floats] = []
        for start in range(0, len(requests), at_once):
            group = requests[start : start + at_once]
            calls = [self.stub.ModelInfer(self._named(request)) for request in group]
            answers = [await call for call in calls]
            found += [np.frombuffer(one.raw_output_contents[0], np.float32) for one in answers]
        return found

    def _named(self, request: kserve.ModelInferRequest) -> kserve.ModelInferRequest:
        named = kserve.ModelInferRequest(model_name=self.model)
        named.MergeFrom(request)
        return named


def single_requests(options: Options, model: TextModel) -> Requests:
    """Requests of one text of 16 tokens each, of Banking77's texts or the repository's samples."""
    rows = banking77(options, "test")
    texts: Sequence[str] = SAMPLE_TEXTS if rows is None else [row.text for row in rows]
    chosen = [ids[:TOKENS] for ids, _ in model.encode(texts) if len(ids) >= TOKENS]
    return [_request(ids) for ids in chosen[:MAX_REQUESTS]]


def _request(ids: Sequence[int]) -> kserve.ModelInferRequest:
    input_ids = np.array([ids], dtype=np.int64)
    inputs = {
        "input_ids": input_ids,
        "attention_mask": np.ones_like(input_ids),
        "token_type_ids": np.zeros_like(input_ids),
    }
    request = kserve.ModelInferRequest()
    for name, array in inputs.items():
        request.inputs.add(name=name, datatype="INT64", shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    return request


def batched_requests(requests: Requests) -> Requests:
    """The same texts, 32 in each request."""
    starts = range(0, max(1, len(requests) - BATCH + 1), BATCH)
    return [_joined(requests[start : start + BATCH]) for start in starts]


def _joined(group: Requests) -> kserve.ModelInferRequest:
    request = kserve.ModelInferRequest()
    for position, tensor in enumerate(group[0].inputs):
        request.inputs.add(name=tensor.name, datatype="INT64", shape=[len(group), TOKENS])
        request.raw_input_contents.append(
            b"".join(single.raw_input_contents[position] for single in group)
        )
    return request


async def min_cosine_under_load(server: Server, requests: Requests) -> float:
    """Smallest cosine between a text's answer alone and its answer among 31 other requests."""
    embeddings = functools.partial(server.embeddings, requests[:BATCH])
    alone = await embeddings(1)
    together = await embeddings(BATCH)
    return min(
        float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        for a, b in zip(alone, together, strict=True)
    )
