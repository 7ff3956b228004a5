"""OTLP over HTTP: encodings, compression, limits, and what exporters are told."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from google.rpc import status_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from penstock.bench.standards.service import RunningTelemetry, running_telemetry

from .otlp import export_request, otlp_span

PROTOBUF = {"content-type": "application/x-protobuf"}
JSON = {"content-type": "application/json; charset=utf-8"}
PAYLOAD = export_request(otlp_span(1)).SerializeToString()


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[RunningTelemetry]:
    async with running_telemetry(tmp_path) as running:
        yield running


async def post(
    service: RunningTelemetry, content: bytes, headers: dict[str, str], path: str = "/v1/traces"
) -> httpx.Response:
    return await service.client.post(
        f"http://{service.http}{path}", content=content, headers=headers
    )


@pytest.mark.parametrize(
    ("encoding", "content"),
    [
        ("identity", PAYLOAD),
        ("gzip", gzip.compress(PAYLOAD, mtime=0)),
        ("deflate", zlib.compress(PAYLOAD)),
    ],
)
async def test_protobuf_is_taken_compressed_or_not(
    service: RunningTelemetry, encoding: str, content: bytes
) -> None:
    response = await post(service, content, {**PROTOBUF, "content-encoding": encoding})
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/x-protobuf"
    assert not otlp.ExportTraceServiceResponse.FromString(response.content).HasField(
        "partial_success"
    )


async def test_json_is_answered_in_json_with_partial_success(service: RunningTelemetry) -> None:
    good = {"traceId": "ab" * 16, "spanId": "cd" * 8, "startTimeUnixNano": 1, "endTimeUnixNano": 2}
    bad = {**good, "spanId": "no hexadecimal"}
    body = {"resourceSpans": [{"scopeSpans": [{"spans": [good, bad]}]}]}
    response = await post(service, json.dumps(body).encode(), JSON)
    assert response.status_code == 200
    assert response.json()["partialSuccess"]["rejectedSpans"] == "1"


@pytest.mark.parametrize(
    ("content", "headers", "code"),
    [
        (b"\xff\xff", PROTOBUF, 400),
        (b"{", JSON, 400),
        (b"not gzip", {**PROTOBUF, "content-encoding": "gzip"}, 400),
        (gzip.compress(PAYLOAD, mtime=0)[:-9], {**PROTOBUF, "content-encoding": "gzip"}, 400),
        (PAYLOAD, {**PROTOBUF, "content-encoding": "br"}, 415),
        (PAYLOAD, {"content-type": "text/plain"}, 415),
        (gzip.compress(bytes(65 << 20), mtime=0), {**PROTOBUF, "content-encoding": "gzip"}, 413),
    ],
)
async def test_what_is_never_taken_is_refused_for_good(
    service: RunningTelemetry, content: bytes, headers: dict[str, str], code: int
) -> None:
    response = await post(service, content, headers)
    assert response.status_code == code
    assert "retry-after" not in response.headers
    if headers["content-type"] == PROTOBUF["content-type"]:
        assert status_pb2.Status.FromString(response.content).message
    assert (await post(service, PAYLOAD, PROTOBUF)).status_code == 200


async def test_every_signal_has_its_path_and_no_other_method(service: RunningTelemetry) -> None:
    for path in ("/v1/traces", "/v1/metrics", "/v1/logs"):
        assert (await post(service, b"", PROTOBUF, path)).status_code == 200
        assert (await service.client.get(f"http://{service.http}{path}")).status_code == 405
    assert (await post(service, b"", PROTOBUF, "/v1/other")).status_code == 404
