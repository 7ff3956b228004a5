"""The protocol over HTTP (Open Inference Protocol, REST), with Triton's extensions for
configuration, statistics, repositories and binary tensors.
"""

from __future__ import annotations

import asyncio
import json
import math
import zlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from grpc import StatusCode
from penstock.api.kserve import inference_pb2 as kserve
from penstock.kserve.inference import Inference
from penstock.kserve.json_bodies import read_infer, to_json, write_infer
from penstock.rpc.auth import CallerMetadata
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault, invalid, to_fault
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

MAX_BODY_BYTES = 16 << 20
"""Bytes of a request's body, as it comes and unpacked: JSON takes several times what tensors do."""
JSON_LENGTH = "inference-header-content-length"
STATUS: Mapping[StatusCode, int] = {
    StatusCode.INVALID_ARGUMENT: 400,
    StatusCode.FAILED_PRECONDITION: 400,
    StatusCode.OUT_OF_RANGE: 400,
    StatusCode.UNAUTHENTICATED: 401,
    StatusCode.PERMISSION_DENIED: 403,
    StatusCode.NOT_FOUND: 404,
    StatusCode.ALREADY_EXISTS: 409,
    StatusCode.ABORTED: 409,
    StatusCode.RESOURCE_EXHAUSTED: 429,
    StatusCode.CANCELLED: 499,
    StatusCode.UNIMPLEMENTED: 501,
    StatusCode.UNAVAILABLE: 503,
    StatusCode.DEADLINE_EXCEEDED: 504,
}
"""HTTP statuses by gRPC code; others are 500."""
WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
"""zlib's parameter for each encoding of a body that is taken."""


class _TooLarge(Exception):
    """A request's body is larger than is taken."""


Answer = Callable[[Inference, Request, Call], Awaitable[Response]]
"""Answers one path."""


def app_of(inference: Inference) -> Starlette:
    """The application that answers the protocol's paths."""

    def route(path: str, method: str, rpc: str, answer: Answer) -> Route:
        return Route(path, _answering(inference, rpc, answer), methods=[method])

    model, version = "/v2/models/{model:path}", "/versions/{version}"
    routes = [
        route("/v2", "GET", "ServerMetadata", _server_metadata),
        route("/v2/health/live", "GET", "ServerLive", _live),
        route("/v2/health/ready", "GET", "ServerReady", _ready),
        route("/v2/models/stats", "GET", "ModelStatistics", _statistics),
        route("/v2/repository/index", "POST", "RepositoryIndex", _index),
        route("/v2/repository/models/{model:path}/load", "POST", "RepositoryModelLoad", _load),
        route(
            "/v2/repository/models/{model:path}/unload", "POST", "RepositoryModelUnload", _unload
        ),
    ]
    for prefix in (model + version, model):
        routes += [
            route(f"{prefix}/infer", "POST", "ModelInfer", _infer),
            route(f"{prefix}/ready", "GET", "ModelReady", _model_ready),
            route(f"{prefix}/config", "GET", "ModelConfig", _config),
            route(f"{prefix}/stats", "GET", "ModelStatistics", _statistics),
            route(prefix, "GET", "ModelMetadata", _model_metadata),
        ]
    return Starlette(routes=routes)


def _answering(
    inference: Inference, rpc: str, answer: Answer
) -> Callable[[Request], Awaitable[Response]]:
    """Check the caller and answer; a failure leaves as its HTTP status with `error`."""

    async def serve(request: Request) -> Response:
        try:
            metadata = CallerMetadata.received(request.headers.items())
            with inference.opened(rpc, metadata):
                caller = await inference.authenticated(rpc, metadata)
                return await answer(inference, request, inference.timed(caller, None))
        except asyncio.CancelledError:
            raise
        except ClientDisconnect:
            return Response(status_code=STATUS[StatusCode.CANCELLED])  # nobody reads it
        except _TooLarge:
            message = f"the body has more than {MAX_BODY_BYTES} bytes; send fewer rows at once"
            return JSONResponse({"error": message}, 413)
        except Exception as error:
            return _refusal(to_fault(error))

    return serve


def _refusal(fault: Fault) -> Response:
    headers = {"retry-after": str(math.ceil(fault.retry_after_s))} if fault.retry_after_s else None
    status = STATUS.get(fault.code, 500)
    return JSONResponse({"error": fault.message}, status, headers)


async def _live(inference: Inference, _: Request, call: Call) -> Response:
    answer = await inference.ServerLive(kserve.ServerLiveRequest(), call)
    return JSONResponse(to_json(answer))


async def _ready(inference: Inference, _: Request, call: Call) -> Response:
    answer = await inference.ServerReady(kserve.ServerReadyRequest(), call)
    return JSONResponse(to_json(answer), 200 if answer.ready else 400)


async def _server_metadata(inference: Inference, _: Request, call: Call) -> Response:
    answer = await inference.ServerMetadata(kserve.ServerMetadataRequest(), call)
    return JSONResponse(to_json(answer))


async def _model_ready(inference: Inference, request: Request, call: Call) -> Response:
    name, version = _model_of(request)
    answer = await inference.ModelReady(kserve.ModelReadyRequest(name=name, version=version), call)
    return JSONResponse({"name": name, **to_json(answer)}, 200 if answer.ready else 400)


async def _model_metadata(inference: Inference, request: Request, call: Call) -> Response:
    name, version = _model_of(request)
    asked = kserve.ModelMetadataRequest(name=name, version=version)
    return JSONResponse(to_json(await inference.ModelMetadata(asked, call)))


async def _config(inference: Inference, request: Request, call: Call) -> Response:
    name, version = _model_of(request)
    asked = kserve.ModelConfigRequest(name=name, version=version)
    return JSONResponse(to_json((await inference.ModelConfig(asked, call)).config))


async def _statistics(inference: Inference, request: Request, call: Call) -> Response:
    name, version = _model_of(request)
    asked = kserve.ModelStatisticsRequest(name=name, version=version)
    return JSONResponse(to_json(await inference.ModelStatistics(asked, call)))


async def _index(inference: Inference, request: Request, call: Call) -> Response:
    said = await _json_object(request)
    asked = kserve.RepositoryIndexRequest(ready=said.get("ready") is True)
    answer = await inference.RepositoryIndex(asked, call)
    return JSONResponse(to_json(answer)["models"])


async def _load(inference: Inference, request: Request, call: Call) -> Response:
    name, _ = _model_of(request)
    if (await _json_object(request)).get("parameters"):
        raise invalid("parameters", "a configuration or files with the request are not served here")
    await inference.RepositoryModelLoad(kserve.RepositoryModelLoadRequest(model_name=name), call)
    return Response(status_code=200)


async def _unload(inference: Inference, request: Request, call: Call) -> Response:
    name, _ = _model_of(request)
    asked = kserve.RepositoryModelUnloadRequest(model_name=name)
    await inference.RepositoryModelUnload(asked, call)
    return Response(status_code=200)


async def _infer(inference: Inference, request: Request, call: Call) -> Response:
    body = await _body(request)
    said = request.headers.get(JSON_LENGTH, str(len(body)))
    if not (said.isascii() and said.isdigit()):
        raise invalid("Inference-Header-Content-Length", f"is {said!r} and not a number of bytes")
    read = read_infer(body, int(said), *_model_of(request))
    response = await _unless_gone(request, inference.ModelInfer(read.request, call))
    written, json_bytes = write_infer(response, read)
    if json_bytes == len(written):
        return Response(written, media_type="application/json")
    headers = {JSON_LENGTH: str(json_bytes)}
    return Response(written, headers=headers, media_type="application/octet-stream")


async def _unless_gone(
    request: Request, work: Awaitable[kserve.ModelInferResponse]
) -> kserve.ModelInferResponse:
    """The outcome of work, which is cancelled when the client hangs up."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    waiting = asyncio.create_task(gone())
    working = asyncio.ensure_future(work)
    try:
        await asyncio.wait({waiting, working}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (waiting, working):
            task.cancel()
        await asyncio.gather(waiting, working, return_exceptions=True)


def _model_of(request: Request) -> tuple[str, str]:
    """Name and version in the path; empty where it has none."""
    return request.path_params.get("model", ""), request.path_params.get("version", "")


async def _json_object(request: Request) -> dict[str, Any]:
    """The body as a JSON object; an empty body is an empty one."""
    body = await _body(request)
    try:
        said = json.loads(body) if body else {}
    except (ValueError, RecursionError):
        raise invalid("", "the body is not JSON") from None
    if not isinstance(said, dict):
        raise invalid("", "the body is not a JSON object")
    return said


async def _body(request: Request) -> bytes:
    """The body, unpacked.

    Raises:
        Fault: its encoding is not known, or it is not packed so.
        _TooLarge: it is larger than is taken.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        _check_body_bytes(size)
        parts.append(part)
    body = b"".join(parts)
    if encoding == "identity" or not body:
        return body
    if encoding not in WINDOW_BITS:
        raise invalid("Content-Encoding", f"{encoding!r} is not taken; use gzip or deflate")
    return _unpacked(body, WINDOW_BITS[encoding])


def _unpacked(body: bytes, window_bits: int) -> bytes:
    unpacker = zlib.decompressobj(window_bits)
    try:
        unpacked = unpacker.decompress(body, MAX_BODY_BYTES + 1)
    except zlib.error:
        raise invalid("Content-Encoding", "the body is not packed in this way") from None
    _check_body_bytes(len(unpacked))
    if not unpacker.eof:
        raise invalid("Content-Encoding", "the packed body is cut off")
    return unpacked


def _check_body_bytes(size: int) -> None:
    if size > MAX_BODY_BYTES:
        raise _TooLarge
