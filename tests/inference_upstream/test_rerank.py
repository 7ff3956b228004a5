"""The wire of `POST /rerank`: what is asked, and what an answer has to be."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_upstream.api.inference_service import UpstreamServicer
from penstock.inference_upstream.protocols.rerank import parse_rerank, rerank_request
from penstock.inference_upstream.settings import Upstream
from penstock.inference_upstream.transport.client import Client
from penstock.otel.telemetry import NO_TELEMETRY
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault
from penstock.rpc.reasons import Reason
from penstock.service.clock import SystemClock
from penstock.testkit.upstream import ScriptedUpstream

TASK = pb.Task(rerank=pb.RerankTask(query="q", documents=["a", "bb", "ccc"], top_n=2))


def row(index: object, score: object) -> dict[str, object]:
    return {"index": index, "relevance_score": score}


def body(*rows: object, **more: Any) -> bytes:
    return json.dumps({"results": rows, **more}).encode()


async def test_an_upstreams_ranking_comes_back_in_its_order_and_length() -> None:
    async with ScriptedUpstream() as upstream:
        server = {
            "name": "up",
            "base_url": upstream.url,
            "models": [{"name": "order", "upstream_name": "gpt-x", "tasks": ["rerank"]}],
        }
        client = Client(Upstream.model_validate(server), NO_TELEMETRY)
        service = UpstreamServicer(client, SystemClock(), NO_TELEMETRY)
        try:
            answer = await service.Compute(pb.ComputeRequest(model="order", task=TASK), Call())
        finally:
            await client.close()
        [sent] = upstream.requests
    result = answer.result
    assert [one.index for one in result.rerank.ranking] == [2, 1]
    assert result.rerank.ranking[0].score == pytest.approx(0.03)
    assert (result.usage.input_tokens, result.usage.estimated) == (2, False)
    assert result.revision == "gpt-x"
    assert (sent["query"], sent["documents"], sent["top_n"]) == ("q", ["a", "bb", "ccc"], 3)


def test_all_documents_are_asked_for_whatever_the_caller_wants_of_them() -> None:
    assert rerank_request(TASK.rerank, "m")["top_n"] == 3


def test_tokens_that_are_not_reported_are_estimated_and_marked() -> None:
    result = parse_rerank(body(row(0, 0.1), row(1, 0.2), row(2, 0.3)), TASK)
    assert result.usage.estimated
    assert result.usage.input_tokens > 0


@pytest.mark.parametrize(
    "answer",
    [
        b"{",
        b"[]",
        b'{"results": 5}',
        body(),
        body(row(0, 0.1), row(1, 0.2)),
        body(row(0, 0.1), row(1, 0.2), row(1, 0.3)),
        body(row(0, 0.1), row(1, 0.2), row(3, 0.3)),
        body(row(0, 0.1), row(1, 0.2), row(2, "NaN")),
        body(row(0, 0.1), row(1, 0.2), row("x", 0.3)),
        body({"index": 0}, row(1, 0.2), row(2, 0.3)),
        body(5, row(1, 0.2), row(2, 0.3)),
        body(row(0, 0.1), row(1, 0.2), row(2, 0.3), usage=7),
    ],
)
def test_an_answer_of_another_shape_is_malformed(answer: bytes) -> None:
    with pytest.raises(Fault) as failed:
        parse_rerank(answer, TASK)
    assert failed.value.reason is Reason.UPSTREAM_MALFORMED
    assert failed.value.code is grpc.StatusCode.UNAVAILABLE
