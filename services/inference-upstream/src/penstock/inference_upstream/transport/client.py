"""Calls to one upstream: timeouts, size limits, and what each failure on the way means."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import httpcore
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_upstream.protocols.faults import malformed, status_fault
from penstock.inference_upstream.protocols.openai_chat import ChatStream
from penstock.inference_upstream.settings import Upstream
from penstock.inference_upstream.transport.pool import ConnectionPool
from penstock.otel.telemetry import Telemetry
from penstock.rpc.errors import Fault, unavailable
from penstock.rpc.reasons import Reason
from penstock.service.clock import Clock

CONNECTION_ERRORS = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ConnectionNotAvailable,
    httpcore.ProxyError,
    ssl.SSLError,
)
TRANSPORT_ERRORS = (httpcore.TimeoutException, *CONNECTION_ERRORS)
TRANSPORT_FAULTS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str, Reason], ...] = (
    (httpcore.ConnectTimeout, "did not accept a connection in time", Reason.UPSTREAM_UNREACHABLE),
    (httpcore.PoolTimeout, "has no free connection in its pool", Reason.UPSTREAM_POOL_FULL),
    (httpcore.TimeoutException, "sent nothing for too long", Reason.UPSTREAM_SILENT),
    (httpcore.ConnectError, "cannot be reached", Reason.UPSTREAM_UNREACHABLE),
    (CONNECTION_ERRORS, "broke the connection", Reason.UPSTREAM_RESET),
)
"""What each error of httpcore means, with its reason; the first that fits counts."""
RETRY_AFTER_S = 0.5
BODY_END_ERRORS = (TimeoutError, *TRANSPORT_ERRORS, Fault)
MAX_LINE_BYTES = 1 << 20
BODY_END_TIMEOUT_S = 0.05
"""How long an upstream that has sent `[DONE]` may take to end its body before its connection is
closed.
"""


class Client:
    """Calls one upstream. Owner of its connections: `close` ends them."""

    def __init__(self, upstream: Upstream, telemetry: Telemetry) -> None:
        self.upstream = upstream
        silence_s = upstream.silence_timeout_ms / 1e3
        self._timeouts = {
            "connect": upstream.connect_timeout_ms / 1e3,
            "read": silence_s,
            "write": silence_s,
            "pool": silence_s,
        }
        self._headers = [("content-type", "application/json"), ("accept-encoding", "identity")]
        key = upstream.key()
        if key:
            self._headers.append(("authorization", f"Bearer {key}"))
        self._pool = ConnectionPool(upstream)
        self.calls = 0
        self.errors = 0
        self.in_flight = 0
        self._add_gauges(telemetry)

    def _add_gauges(self, telemetry: Telemetry) -> None:
        pool = self._pool

        def add(name: str, unit: str, description: str, read: Callable[[], float]) -> None:
            telemetry.gauge(f"penstock.upstream.{name}", unit, description, lambda: float(read()))

        add("in_flight", "{call}", "Calls under way", lambda: self.in_flight)
        add("waiting", "{call}", "Calls that wait for a connection", lambda: pool.waiting)
        add("errors", "{call}", "Calls that failed there or on the way", lambda: self.errors)
        add("reuse_share", "1", "Share of calls on an open connection", lambda: self.reuse_share)
        connections = "{connection}"
        add("connections_opened", connections, "Connections set up so far", lambda: self.opened)
        add("connections_open", connections, "Connections that are open", lambda: pool.open)
        add("connections_busy", connections, "Connections with a call", lambda: pool.busy)
        add("tls_resumed", connections, "Connections that resumed TLS", lambda: self.resumed)

    @property
    def opened(self) -> int:
        """Connections set up so far."""
        return self._pool.opened

    @property
    def resumed(self) -> int:
        """Connections that resumed a TLS session."""
        return self._pool.sessions.resumed

    @property
    def reuse_share(self) -> float:
        """Share of calls on a connection that was open already, 0 to 1."""
        return max(0.0, 1.0 - self.opened / self.calls) if self.calls else 0.0

    async def post(self, path: str, body: dict[str, Any]) -> bytes:
        """The body of a whole answer.

        Raises:
            Fault: what the upstream's status or the failure on the way means.
        """
        async with self._call(path, body) as response:
            _check_content_type(response, "application/json")
            return b"".join([piece async for piece in self._body(response)])

    async def stream_chat(
        self, body: dict[str, Any], task: pb.GenerateTask
    ) -> AsyncGenerator[pb.GenerateChunk | pb.TaskResult, None]:
        """A streamed answer to `POST /chat/completions`: its chunks, then the whole result.

        Closing the iterator ends the upstream's call.

        Raises:
            Fault: as `post`; UNAVAILABLE where the stream is cut, which is never passed on as
                complete.
        """
        chat = ChatStream(task)
        async with self._call("/chat/completions", body) as response:
            _check_content_type(response, "text/event-stream")
            pieces = self._body(response)
            async with contextlib.aclosing(_lines(pieces)) as lines:
                async for line in lines:
                    text = chat.feed_line(line)
                    if text:
                        yield pb.GenerateChunk(delta=text)
                    if chat.is_done:
                        break
            result, last_chunk = chat.result()
            yield last_chunk
            yield result
            await _read_to_end(pieces)

    @contextlib.asynccontextmanager
    async def _call(self, path: str, body: dict[str, Any]) -> AsyncIterator[httpcore.Response]:
        """A request and its response with status 200; a failure is counted and raised as Fault."""
        self.calls += 1
        self.in_flight += 1
        url = self.upstream.base_url + path
        try:
            async with self._pool.post(url, self._headers, _json(body), self._timeouts) as response:
                if response.status != 200:
                    raise status_fault(response.status, _headers(response), time.time())
                yield response
        except TRANSPORT_ERRORS as error:
            self.errors += 1
            raise self._transport_fault(error) from None
        except Fault:
            self.errors += 1
            raise
        finally:
            self.in_flight -= 1

    def _transport_fault(self, error: Exception) -> Fault:
        for errors, what, reason in TRANSPORT_FAULTS:
            if isinstance(error, errors):
                message = f"the upstream {self.upstream.name} {what}; retry, or use another one"
                return unavailable(message, retry_after_s=RETRY_AFTER_S, reason=reason)
        raise error

    async def _body(self, response: httpcore.Response) -> AsyncIterator[bytes]:
        """The pieces of a response's body, within its size limit."""
        max_bytes = self.upstream.most_answer_bytes
        size = 0
        async for piece in response.aiter_stream():
            size += len(piece)
            if size > max_bytes:
                raise unavailable(
                    f"the answer of the upstream {self.upstream.name} is larger than {max_bytes} "
                    "bytes; ask for less, or raise most_answer_bytes",
                    reason=Reason.UPSTREAM_TOO_LARGE,
                )
            yield piece

    async def sweep_forever(self, clock: Clock) -> None:
        """Close idle connections as their time comes, until cancelled."""
        await self._pool.sweep_forever(clock)

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.close()


async def _lines(pieces: AsyncIterator[bytes]) -> AsyncGenerator[str, None]:
    """The lines of a streamed body, without their ends; what follows the last end is dropped.

    Lines are cut as bytes, because a character may be split over two pieces.
    """
    rest = b""
    async for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            raise malformed("an event is too long")
        for line in lines:
            yield line.decode("utf-8", "replace").rstrip("\r")


async def _read_to_end(pieces: AsyncIterator[bytes]) -> None:
    """Read the rest of a body: only then can its connection be used again."""
    with contextlib.suppress(*BODY_END_ERRORS):
        async with asyncio.timeout(BODY_END_TIMEOUT_S):
            async for _ in pieces:
                pass


def _json(body: dict[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _check_content_type(response: httpcore.Response, expected: str) -> None:
    header = _headers(response).get("content-type", "")
    content_type = header.partition(";")[0].strip().lower()
    if content_type != expected:
        raise malformed(f"content type {content_type or 'missing'} instead of {expected}")


def _headers(response: httpcore.Response) -> dict[str, str]:
    return {
        name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers
    }
