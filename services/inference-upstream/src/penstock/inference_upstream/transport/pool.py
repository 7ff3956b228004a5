"""The connections to one upstream: kept, counted, and made anew now and then.

HTTP itself is httpcore's.

Owner of every connection. A pool that is older than `refresh_s` is put aside: its calls end on it,
new calls look the name up again.
"""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpcore
from penstock.inference_upstream.settings import Upstream
from penstock.inference_upstream.transport.stream_reset import reset_stream
from penstock.inference_upstream.transport.tls_sessions import TlsSessions
from penstock.service.clock import Clock

SWEEPS_PER_KEEPALIVE = 4
"""An idle connection outlives its time by a quarter of it at most."""
MIN_SWEEP_S = 0.1


@dataclass(eq=False)
class _CountedPool:
    """A pool with the calls that it carries."""

    pool: httpcore.AsyncConnectionPool
    born_s: float
    calls: int = 0


class ConnectionPool:
    """Persistent connections, over HTTP/2 where that is asked for and offered, within the bounds of
    the upstream's section.
    """

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        # One context for all connections; httpcore's own trusts the authorities that certifi lists.
        self._trust = (
            ssl.create_default_context(cafile=upstream.ca_file)
            if upstream.ca_file
            else httpcore.default_ssl_context()
        )
        self.sessions = TlsSessions(self._trust)
        self.opened = 0
        self.waiting = 0
        self._held = self._made()
        self._aside: set[_CountedPool] = set()

    def _made(self) -> _CountedPool:
        upstream = self._upstream
        pool = httpcore.AsyncConnectionPool(
            ssl_context=self._trust,
            max_connections=upstream.most_connections,
            max_keepalive_connections=upstream.kept_connections,
            keepalive_expiry=upstream.keepalive_s,
            http2=upstream.http2,
        )
        return _CountedPool(pool, time.monotonic())

    @property
    def open(self) -> int:
        """Connections that are open."""
        return len(self._connections())

    @property
    def busy(self) -> int:
        """Connections that carry a call."""
        return sum(1 for connection in self._connections() if not connection.is_idle())

    def _connections(self) -> list[Any]:
        pools = [self._held, *self._aside]
        return [known for held in pools for known in held.pool.connections if not known.is_closed()]

    @contextlib.asynccontextmanager
    async def post(
        self,
        url: str,
        headers: Sequence[tuple[str, str]],
        content: bytes,
        timeouts: Mapping[str, float],
    ) -> AsyncIterator[httpcore.Response]:
        """One request; leaving it before its body has ended closes its connection, or over HTTP/2
        its stream.

        Raises httpcore's exceptions.
        """
        held = await self._current()
        told = _RequestTrace(self, held.pool)
        held.calls += 1
        try:
            extensions = {"timeout": timeouts, "trace": told.event}
            async with held.pool.stream(
                "POST", url, headers=list(headers), content=content, extensions=extensions
            ) as response:
                yield response
        finally:
            told.has_connection()
            held.calls -= 1
            if held in self._aside and not held.calls:
                self._aside.discard(held)
                await held.pool.aclose()

    async def _current(self) -> _CountedPool:
        old = self._held
        if time.monotonic() - old.born_s >= self._upstream.refresh_s:
            self._held = self._made()
            if old.calls:
                self._aside.add(old)
            else:
                await old.pool.aclose()
        return self._held

    async def sweep(self) -> None:
        """Close the connections that have been idle for `keepalive_s` or that the upstream has
        closed.

        httpcore does so only when a call comes; a call that is given one of these in the meantime
        takes another by itself.
        """
        for connection in self._connections():
            if connection.is_idle() and connection.has_expired():
                with contextlib.suppress(OSError, httpcore.NetworkError):
                    await connection.aclose()

    async def keep(self, clock: Clock) -> None:
        """Sweep as long as the pool lives, whether it is used or not."""
        while True:
            await clock.sleep(max(MIN_SWEEP_S, self._upstream.keepalive_s / SWEEPS_PER_KEEPALIVE))
            await self.sweep()

    async def close(self) -> None:
        """Close every connection."""
        for held in (self._held, *self._aside):
            await held.pool.aclose()


class _RequestTrace:
    """What httpcore tells of one request: that it has a connection, that one was set up, and that
    it is left before its end.
    """

    def __init__(self, pool: ConnectionPool, carrier: httpcore.AsyncConnectionPool) -> None:
        self._pool, self._carrier = pool, carrier
        self._waits = True
        self._ended = False
        pool.waiting += 1

    async def event(self, name: str, info: dict[str, Any]) -> None:
        """An event of the request; the first one comes when it has its connection."""
        self.has_connection()
        if name == "connection.connect_tcp.complete":
            self._pool.opened += 1
        elif name == "http2.receive_response_body.complete":
            self._ended = True
        elif name == "http2.response_closed.started" and not self._ended:
            await reset_stream(self._carrier, self.event, info["stream_id"])

    def has_connection(self) -> None:
        """The request waits no longer."""
        self._pool.waiting -= self._waits
        self._waits = False
