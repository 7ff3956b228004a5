"""What belongs to one transport: streams, health and reflection of gRPC; bodies and statuses of
HTTP; and credentials.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Awaitable, Callable, Sequence

from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from penstock.bench.kserve.cases import HELLO, LONGER, OUTPUT, refused
from penstock.bench.kserve.clients import NO_KEY, GrpcClient, answer_of, texts
from penstock.bench.kserve.http_client import HttpClient, body_of, path_of, read
from penstock.bench.kserve.targets import MODEL, Target

SERVICE = "inference.GRPCInferenceService"
FINAL = "triton_final_response"
INFER = f"{path_of(MODEL)}/infer"


async def streams_in_order_and_says_what_is_final(client: GrpcClient, _: Target) -> None:
    asks = [texts([HELLO] * rows, MODEL, id=str(rows)) for rows in (5, 1, 3, 1)]
    responses = await client.stream(asks)
    assert [each.infer_response.id for each in responses] == [ask.id for ask in asks]
    for each in responses:
        assert not each.error_message
        assert each.infer_response.parameters[FINAL].bool_param
        assert answer_of(each.infer_response).outputs[OUTPUT][0] == "FP32"


async def a_stream_goes_on_after_a_failure(client: GrpcClient, _: Target) -> None:
    bad = texts([HELLO], "nobody", id="bad")
    responses = await client.stream([texts([HELLO], MODEL, id="a"), bad, texts([HELLO], MODEL)])
    assert [bool(each.error_message) for each in responses] == [False, True, False]
    assert responses[1].infer_response.id == "bad"
    assert responses[1].infer_response.parameters[FINAL].bool_param


async def is_healthy_by_name(client: GrpcClient, _: Target) -> None:
    request = health_pb2.HealthCheckRequest(service=SERVICE)
    told = await health_pb2_grpc.HealthStub(client.channel).Check(request)
    assert told.status == health_pb2.HealthCheckResponse.SERVING


async def is_found_by_reflection(client: GrpcClient, _: Target) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(client.channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    async for told in stub.ServerReflectionInfo(iter([request])):
        assert SERVICE in {each.name for each in told.list_services_response.service}


async def takes_packed_bodies(client: HttpClient, _: Target) -> None:
    body, _size = body_of(texts([LONGER], MODEL))
    plain = read(await client.http.post(INFER, content=body))
    for encoding, packed in (("gzip", gzip.compress(body)), ("deflate", zlib.compress(body))):
        headers = {"Content-Encoding": encoding}
        answer = read(await client.http.post(INFER, content=packed, headers=headers))
        assert answer.outputs == plain.outputs


async def takes_nested_data(client: HttpClient, _: Target) -> None:
    body, _size = body_of(texts([HELLO], MODEL))
    nested = json.loads(body)
    for tensor in nested["inputs"]:
        tensor["data"] = [tensor["data"]]
    flat = read(await client.http.post(INFER, content=body))
    assert read(await client.http.post(INFER, json=nested)).outputs == flat.outputs


async def gives_binary_outputs_where_asked(client: HttpClient, _: Target) -> None:
    said = json.loads(body_of(texts([HELLO], MODEL))[0])
    said["outputs"] = [{"name": OUTPUT, "parameters": {"binary_data": True}}]
    response = await client.http.post(INFER, json=said)
    length = int(response.headers["Inference-Header-Content-Length"])
    assert len(response.content) - length == 4 * 384
    assert response.headers["content-type"] == "application/octet-stream"
    assert read(response).outputs[OUTPUT][1] == [1, 384]


async def refuses_bodies_that_cannot_be(client: HttpClient, _: Target) -> None:
    body, size = body_of(texts([HELLO], MODEL, raw=True))
    length = {"Inference-Header-Content-Length": str(size)}
    for content, headers in (
        (b"{", {}),
        (b"[]", {}),
        (b"{}", {}),
        (b"[" * 100_000, {}),
        (body[:-1], length),
        (body + b"x", length),
        (body, {"Inference-Header-Content-Length": "-1"}),
        (body, {"Inference-Header-Content-Length": str(len(body) + 1)}),
        (b"no gzip", {"Content-Encoding": "gzip"}),
        (b"{}", {"Content-Encoding": "zip"}),
    ):
        response = await client.http.post(INFER, content=content, headers=headers)
        assert response.status_code == 400, (content[:20], response.text)
        assert response.json()["error"]


async def refuses_bodies_that_are_too_large(client: HttpClient, _: Target) -> None:
    bomb = gzip.compress(b" " * (64 << 20))
    response = await client.http.post(INFER, content=bomb, headers={"Content-Encoding": "gzip"})
    assert response.status_code == 413
    assert (await client.http.get("/v2/nothing")).status_code == 404
    assert (await client.http.get(INFER)).status_code in (404, 405)


async def wants_credentials_and_none_to_be_probed(
    client: GrpcClient | HttpClient, target: Target
) -> None:
    if not target.headers:
        return
    nobody = type(client)(target, with_key=False)
    try:
        assert await nobody.live() and await nobody.ready()
        for work in (
            nobody.infer(texts([HELLO], MODEL)),
            nobody.model(MODEL),
            nobody.model_ready(MODEL),
            nobody.index(),
        ):
            await refused(work, NO_KEY, "")
    finally:
        await nobody.close()


GRPC_CASES: Sequence[Callable[[GrpcClient, Target], Awaitable[None]]] = (
    streams_in_order_and_says_what_is_final,
    a_stream_goes_on_after_a_failure,
    is_healthy_by_name,
    is_found_by_reflection,
    wants_credentials_and_none_to_be_probed,
)
HTTP_CASES: Sequence[Callable[[HttpClient, Target], Awaitable[None]]] = (
    takes_packed_bodies,
    takes_nested_data,
    gives_binary_outputs_where_asked,
    refuses_bodies_that_cannot_be,
    refuses_bodies_that_are_too_large,
    wants_credentials_and_none_to_be_probed,
)
