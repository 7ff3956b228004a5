"""OTLP over HTTP: protobuf and JSON, compressed or not, at `/v1/traces`, `/v1/metrics`, `/v1/logs`.

The answer is in the encoding of the request. A request that will never be taken is answered 400,
413 or 415; an overload 503 with `Retry-After`, after which exporters try again.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Awaitable, Callable

from google.protobuf import json_format
from google.protobuf.message import Message
from grpc import StatusCode
from penstock.rpc.errors import Fault, invalid, to_fault, to_rpc_status
from penstock.telemetry.ingest.exports import MAX_EXPORT_BYTES, ExportReceiver, Signal, signals
from penstock.telemetry.ingest.reading import read_json, read_protobuf
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
WINDOW_BITS = {"gzip": 31, "deflate": 15}
"""zlib's number for each compression that is taken."""

HTTP_CODES = {
    StatusCode.INVALID_ARGUMENT: 400,
    StatusCode.RESOURCE_EXHAUSTED: 413,
    StatusCode.UNAVAILABLE: 503,
}


class _Refused(Exception):
    """An answer that says why a request is not taken."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def otlp_app(receiver: ExportReceiver) -> Starlette:
    """The application of the three paths."""
    return Starlette(
        routes=[
            Route(signal.path, _serve(signal), methods=["POST"]) for signal in signals(receiver)
        ]
    )


def _serve(signal: Signal) -> Callable[[Request], Awaitable[Response]]:
    async def serve(request: Request) -> Response:
        encoding = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if encoding not in (PROTOBUF, JSON):
            text = f"content-type: must be {PROTOBUF} or {JSON}"
            return _failure(PROTOBUF, 415, invalid("", text))
        try:
            payload = await _body(request)
            read = read_json if encoding == JSON else read_protobuf
            message = await signal.take(read(signal.request, payload))
        except _Refused as refused:
            return _failure(encoding, refused.code, invalid("", refused.message))
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception as error:
            fault = to_fault(error)
            return _failure(encoding, HTTP_CODES.get(fault.code, 500), fault)
        return Response(_encoded(message, encoding), media_type=encoding)

    return serve


async def _body(request: Request) -> bytes:
    """The decompressed body.

    Raises:
        _Refused: it is too large, or compressed in another way or wrongly.
    """
    compression = request.headers.get("content-encoding", "identity").strip().lower()
    if compression in ("identity", ""):
        return await _received(request)
    if compression not in WINDOW_BITS:
        raise _Refused(415, "content-encoding: must be gzip, deflate or identity")
    decompressor = zlib.decompressobj(WINDOW_BITS[compression])
    try:
        body = decompressor.decompress(await _received(request), MAX_EXPORT_BYTES + 1)
    except zlib.error:
        raise _Refused(400, f"the body is not {compression}") from None
    if len(body) > MAX_EXPORT_BYTES:
        raise _Refused(413, f"an export may have {MAX_EXPORT_BYTES} bytes, decompressed")
    if not decompressor.eof:
        raise _Refused(400, f"the body is {compression} that was cut off")
    return body


async def _received(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_EXPORT_BYTES:
            raise _Refused(413, f"an export may have {MAX_EXPORT_BYTES} bytes")
    return bytes(body)


def _failure(encoding: str, code: int, fault: Fault) -> Response:
    headers = {}
    if fault.retry_after_s:
        headers["retry-after"] = str(math.ceil(fault.retry_after_s))
    content = _encoded(to_rpc_status(fault), encoding)
    return Response(content, code, headers, encoding)


def _encoded(message: Message, encoding: str) -> bytes:
    if encoding == JSON:
        return json_format.MessageToJson(message, indent=None).encode()
    return message.SerializeToString()
