"""Calls to one upstream: addresses, headers, waits, size limits, and what each failure on the way
means.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import httpcore
from penstock.inference_upstream.protocols.faults import malformed, status_fault
from penstock.inference_upstream.protocols.passing_on import AsSent
from penstock.inference_upstream.protocols.provider_words import told_as_it_came
from penstock.inference_upstream.providers import AuthStyle
from penstock.inference_upstream.settings import Upstream, UpstreamModel
from penstock.inference_upstream.transport.decoding import decoded
from penstock.inference_upstream.transport.pool import ConnectionPool, Response
from penstock.inference_upstream.transport.waits import Waits, waits_of
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
    (TimeoutError, "sent nothing for too long", Reason.UPSTREAM_SILENT),
    (httpcore.ConnectError, "cannot be reached", Reason.UPSTREAM_UNREACHABLE),
    (httpcore.ProxyError, "cannot be reached through its proxy", Reason.UPSTREAM_UNREACHABLE),
    (CONNECTION_ERRORS, "broke the connection", Reason.UPSTREAM_RESET),
)
"""What each error on the way means, with its reason; the first that fits counts."""
RETRY_AFTER_S = 0.5
BODY_END_ERRORS = (TimeoutError, *TRANSPORT_ERRORS, Fault)
BODY_END_TIMEOUT_S = 0.05
"""How long an upstream that has marked the end of its answer may take to end its body before its
connection is closed.
"""
MAX_ERROR_BYTES = 16_384
"""Bytes of an error's body that are read."""
ERROR_BODY_TIMEOUT_S = 2.0
AUTH_HEADERS: dict[AuthStyle, tuple[str, str]] = {
    "bearer": ("authorization", "Bearer "),
    "api-key": ("api-key", ""),
    "x-api-key": ("x-api-key", ""),
}
"""The header of the key, and what is before it there."""
EVENT_STREAM = "text/event-stream"
JSON = "application/json"
Content = dict[str, Any] | AsSent
"""The body of a request: as a value, or as its caller sent it."""


class Body(NamedTuple):
    """The body of a response with status 200."""

    is_stream: bool
    """Whether it is server-sent events; otherwise it is JSON."""
    pieces: AsyncIterator[bytes]


class Client:
    """Calls one upstream. Owner of its connections: `close` ends them."""

    def __init__(self, upstream: Upstream, telemetry: Telemetry) -> None:
        self.upstream = upstream
        self._headers = _request_headers(upstream)
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

    async def post(self, path: str, body: Content, model: UpstreamModel) -> bytes:
        """The body of a whole answer.

        Raises:
            Fault: what the upstream's status or the failure on the way means.
        """
        waits = waits_of(self.upstream, model).for_whole_answer()
        async with self._call(path, body, model, waits) as answered:
            if answered.is_stream:
                raise malformed(f"content type {EVENT_STREAM} instead of {JSON}")
            return await read_whole(answered)

    @contextlib.asynccontextmanager
    async def stream(self, path: str, body: Content, model: UpstreamModel) -> AsyncIterator[Body]:
        """The body of a streamed answer inside the block; leaving the block early ends the
        upstream's call. An upstream that does not stream answers with JSON.

        A Fault that is raised inside the block is counted as the upstream's.

        Raises:
            Fault: as `post`.
        """
        waits = waits_of(self.upstream, model)
        async with self._call(path, body, model, waits) as answered:
            yield answered

    @contextlib.asynccontextmanager
    async def _call(
        self, path: str, body: Content, model: UpstreamModel, waits: Waits
    ) -> AsyncIterator[Body]:
        """A request and its response with status 200; a failure is counted and raised as Fault."""
        self.calls += 1
        self.in_flight += 1
        ends_at_s = time.monotonic() + waits.whole_s
        timeouts = {"connect": self.upstream.connect_timeout_ms / 1e3, "pool": waits.silence_s}
        content = body.body if isinstance(body, AsSent) else _json(body)
        post = self._pool.post(self._url(path, model), self._headers_of(body), content, timeouts)
        try:
            async with contextlib.AsyncExitStack() as stack:
                async with asyncio.timeout(min(waits.first_byte_s, waits.whole_s)):
                    response = await stack.enter_async_context(post)
                if response.status != 200:
                    raise await _refusal(response, body)
                yield self._answered(response, waits, ends_at_s)
        except (TimeoutError, *TRANSPORT_ERRORS) as error:
            self.errors += 1
            raise self._transport_fault(error) from None
        except Fault:
            self.errors += 1
            raise
        finally:
            self.in_flight -= 1

    def _headers_of(self, body: Content) -> list[tuple[str, str]]:
        """The headers of a request; those that its caller sent go before the provider's, and the
        operator's before both.
        """
        if not isinstance(body, AsSent) or not body.headers:
            return self._headers
        operators = {name.lower() for name in self.upstream.headers}
        callers = {name: text for name, text in body.headers.items() if name not in operators}
        return list((dict(self._headers) | callers).items())

    def _url(self, path: str, model: UpstreamModel) -> str:
        base = self.upstream.base_url.replace("{model}", quote(model.name_at_upstream, safe=""))
        query = f"?{urlencode(self.upstream.query)}" if self.upstream.query else ""
        return base + path + query

    def _answered(self, response: Response, waits: Waits, ends_at_s: float) -> Body:
        headers = _headers(response)
        content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type not in (JSON, EVENT_STREAM):
            raise malformed(f"content type {content_type[:64] or 'missing'}")
        pieces = decoded(_timed(response, waits, ends_at_s), headers.get("content-encoding", ""))
        return Body(content_type == EVENT_STREAM, self._bounded(pieces))

    def _transport_fault(self, error: Exception) -> Fault:
        for errors, what, reason in TRANSPORT_FAULTS:
            if isinstance(error, errors):
                message = f"the upstream {self.upstream.name} {what}; retry, or use another one"
                return unavailable(message, retry_after_s=RETRY_AFTER_S, reason=reason)
        raise error

    async def _bounded(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The pieces of a body, within its size limit."""
        max_bytes = self.upstream.most_answer_bytes
        size = 0
        async for piece in pieces:
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


async def read_whole(body: Body) -> bytes:
    """The body in one piece."""
    return b"".join([piece async for piece in body.pieces])


async def read_to_end(body: Body) -> bytes:
    """The rest of a body, as far as it comes in time: only once it is read can its connection be
    used again.
    """
    rest = bytearray()
    with contextlib.suppress(*BODY_END_ERRORS):
        async with asyncio.timeout(BODY_END_TIMEOUT_S):
            async for piece in body.pieces:
                rest += piece
    return bytes(rest)


async def _timed(response: Response, waits: Waits, ends_at_s: float) -> AsyncIterator[bytes]:
    """The pieces of a body, each within its wait.

    Raises:
        TimeoutError: a piece did not come in time.
    """
    pieces = response.aiter_stream().__aiter__()
    wait_s = waits.first_byte_s
    while True:
        async with asyncio.timeout(max(0.0, min(wait_s, ends_at_s - time.monotonic()))):
            piece = await anext(pieces, None)
        if piece is None:
            return
        wait_s = waits.silence_s
        yield piece


async def _refusal(response: Response, sent: Content) -> Fault:
    """What a response with another status means; its body is read as far as is needed."""
    body = bytearray()
    with contextlib.suppress(TimeoutError, *TRANSPORT_ERRORS):
        async with asyncio.timeout(ERROR_BODY_TIMEOUT_S):
            async for piece in response.aiter_stream():
                body += piece
                if len(body) >= MAX_ERROR_BYTES:
                    break
    fault = status_fault(response.status, _headers(response), bytes(body), time.time())
    if not isinstance(sent, AsSent):
        return fault
    return told_as_it_came(fault, response.status, bytes(body), sent.body)


def _request_headers(upstream: Upstream) -> list[tuple[str, str]]:
    """The headers of every request; the operator's own go before the provider's."""
    headers = {"content-type": JSON, "accept-encoding": "identity"}
    headers |= dict(upstream.known_provider.headers)
    key = upstream.key()
    if key:
        name, before = AUTH_HEADERS[upstream.auth or upstream.known_provider.auth]
        headers[name] = before + key
    headers |= {name.lower(): value for name, value in upstream.headers.items()}
    return list(headers.items())


def _json(body: dict[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _headers(response: Response) -> dict[str, str]:
    return {
        name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers
    }
