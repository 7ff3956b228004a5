"""The connections to one upstream: pooled, counted, closed when idle, and renewed now and then.

HTTP/1.1 is spoken by `http1_pool`; HTTP/2, and what goes through a proxy, by httpcore. Ownership:
the pool owns every connection. A pool of connections that is older than `refresh_s` is retired: its
calls end on it, and new calls get a new one, which looks the host name up again.
"""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import httpcore
from penstock.inference_upstream.settings import Upstream
from penstock.inference_upstream.transport.http1_pool import Http1Pool
from penstock.inference_upstream.transport.network import AnyioBackend
from penstock.inference_upstream.transport.stream_reset import reset_stream
from penstock.inference_upstream.transport.tls_sessions import TlsSessions
from penstock.service.clock import Clock

SWEEPS_PER_KEEPALIVE = 4
"""Sweeps within `keepalive_s`: an idle connection outlives its time by a quarter of it at most."""
MIN_SWEEP_S = 0.1


class Response(Protocol):
    """A response as it comes."""

    @property
    def status(self) -> int:
        """Its status code."""
        ...

    @property
    def headers(self) -> Sequence[tuple[bytes, bytes]]:
        """Its headers in their order."""
        ...

    def aiter_stream(self) -> AsyncIterator[bytes]:
        """The pieces of its body; raises httpcore's exceptions."""
        ...


@dataclass(eq=False)
class _CountedPool:
    """A pool, when it was made, and the number of calls that it carries."""

    pool: Http1Pool | httpcore.AsyncConnectionPool
    made_at_s: float
    calls: int = 0


class ConnectionPool:
    """Persistent connections within the bounds of the upstream's section, over HTTP/2 where that is
    configured and offered. Owner: whoever made it must `close` it.
    """

    def __init__(self, upstream: Upstream, now: Callable[[], float] = time.monotonic) -> None:
        self._upstream = upstream
        self._now = now
        # One context for all connections; httpcore's own trusts the authorities that certifi lists.
        self._tls = (
            ssl.create_default_context(cafile=upstream.ca_file)
            if upstream.ca_file
            else httpcore.default_ssl_context()
        )
        self._tls.set_alpn_protocols(["http/1.1"])  # httpcore sets its own
        self.sessions = TlsSessions(self._tls, now)
        self._proxy = (
            httpcore.Proxy(upstream.proxy, auth=upstream.proxy_auth()) if upstream.proxy else None
        )
        self.opened = 0
        """Connections set up so far."""
        self.waiting = 0
        """Calls that wait for a connection."""
        self._current = self._make()
        self._retired: set[_CountedPool] = set()

    def _make(self) -> _CountedPool:
        upstream = self._upstream
        if not upstream.http2 and self._proxy is None:
            return _CountedPool(Http1Pool(upstream, self._tls, self._now), self._now())
        pool = httpcore.AsyncConnectionPool(
            ssl_context=self._tls,
            max_connections=upstream.most_connections,
            max_keepalive_connections=upstream.kept_connections,
            keepalive_expiry=upstream.keepalive_s,
            http2=upstream.http2,
            proxy=self._proxy,
            network_backend=AnyioBackend(),
        )
        return _CountedPool(pool, self._now())

    @property
    def open(self) -> int:
        """Connections that are open."""
        return len(self._connections())

    @property
    def busy(self) -> int:
        """Connections that carry a call."""
        return sum(not connection.is_idle() for connection in self._connections())

    def _connections(self) -> list[Any]:
        pools = [self._current, *self._retired]
        connections = [each for counted in pools for each in counted.pool.connections]
        return [connection for connection in connections if not connection.is_closed()]

    @contextlib.asynccontextmanager
    async def post(
        self,
        url: str,
        headers: Sequence[tuple[str, str]],
        content: bytes,
        timeouts: Mapping[str, float],
    ) -> AsyncIterator[Response]:
        """One request; its response inside the block.

        Leaving the block before the body has ended closes the connection, or over HTTP/2 the
        stream. Raises httpcore's exceptions.
        """
        counted = await self._current_pool()
        progress = _Progress(self)
        counted.calls += 1
        try:
            async with _request(counted.pool, url, headers, content, timeouts, progress) as answer:
                yield answer
        finally:
            progress.stop_waiting()
            counted.calls -= 1
            if counted in self._retired and not counted.calls:
                self._retired.discard(counted)
                await counted.pool.aclose()

    async def _current_pool(self) -> _CountedPool:
        """The pool for a new call; the earlier one is retired where it is too old."""
        old = self._current
        if self._now() - old.made_at_s >= self._upstream.refresh_s:
            self._current = self._make()
            if old.calls:
                self._retired.add(old)
            else:
                await old.pool.aclose()
        return self._current

    async def sweep(self) -> None:
        """Close the connections that have been idle for `keepalive_s`, or that the upstream has
        closed.

        httpcore by itself does so only when a call comes. A call that gets one of these
        connections meanwhile is given another one by httpcore.
        """
        for connection in self._connections():
            if connection.is_idle() and connection.has_expired():
                with contextlib.suppress(OSError, httpcore.NetworkError):
                    await connection.aclose()

    async def sweep_forever(self, clock: Clock) -> None:
        """Sweep at intervals until cancelled, whether calls come or not."""
        interval_s = max(MIN_SWEEP_S, self._upstream.keepalive_s / SWEEPS_PER_KEEPALIVE)
        while True:
            await clock.sleep(interval_s)
            await self.sweep()

    async def close(self) -> None:
        """Close every connection."""
        for counted in (self._current, *self._retired):
            await counted.pool.aclose()


class _Progress:
    """Counts one request while it waits for a connection, and the connection that is set up."""

    def __init__(self, counts: ConnectionPool) -> None:
        self._counts = counts
        self._is_waiting = True
        counts.waiting += 1

    def stop_waiting(self) -> None:
        """Count the request as waiting no longer."""
        if self._is_waiting:
            self._is_waiting = False
            self._counts.waiting -= 1

    def connected(self) -> None:
        """Count a connection that was set up for it."""
        self._counts.opened += 1


def _request(
    pool: Http1Pool | httpcore.AsyncConnectionPool,
    url: str,
    headers: Sequence[tuple[str, str]],
    content: bytes,
    timeouts: Mapping[str, float],
    progress: _Progress,
) -> contextlib.AbstractAsyncContextManager[Response]:
    if isinstance(pool, Http1Pool):
        return pool.post(url, headers, content, timeouts, progress)
    trace = _HttpcoreTrace(progress, pool)
    extensions = {"timeout": timeouts, "trace": trace.on_event}
    return pool.stream("POST", url, headers=list(headers), content=content, extensions=extensions)


class _HttpcoreTrace:
    """Follows one request by httpcore's trace events, and ends its HTTP/2 stream where it is left
    early.
    """

    def __init__(self, progress: _Progress, pool: httpcore.AsyncConnectionPool) -> None:
        self._progress = progress
        self._pool = pool
        self._is_complete = False

    async def on_event(self, name: str, info: dict[str, Any]) -> None:
        """Take an event of the request; the first one comes when it has its connection."""
        self._progress.stop_waiting()
        if name == "connection.connect_tcp.complete":
            self._progress.connected()
        elif name == "http2.receive_response_body.complete":
            self._is_complete = True
        elif name == "http2.response_closed.started" and not self._is_complete:
            await reset_stream(self._pool, self.on_event, info["stream_id"])
