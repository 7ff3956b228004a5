"""A pool of HTTP/1.1 connections, with what `pool` needs of httpcore's: requests, and the
connections with their states.

A call waits for one of `most_connections` places, in the order of asking; then it takes the newest
idle connection to its host that is still open, else sets one up: by Happy Eyeballs (RFC 8305),
since a host may have addresses that nobody answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

import httpcore
from aiohappyeyeballs import start_connection
from penstock.inference_upstream.settings import Upstream
from penstock.inference_upstream.transport.http1_connection import Http1Connection

HAPPY_EYEBALLS_DELAY_S = 0.25
"""Between attempts at two addresses of a host, as RFC 8305 (8) has it."""
DEFAULT_PORTS = {"http": 80, "https": 443}
NO_HEADER_TEXT = re.compile(r"[\r\n\0]")


class Target(NamedTuple):
    """Whom a request goes to and what it asks for."""

    scheme: str
    host: str
    port: int
    path: str
    host_header: str

    @property
    def origin(self) -> tuple[str, str, int]:
        """What a connection is to."""
        return self[:3]


class Waits(Protocol):
    """Takes note of how far a request has come."""

    def stop_waiting(self) -> None:
        """It has its place."""
        ...

    def connected(self) -> None:
        """A connection was set up for it."""
        ...


@dataclass(frozen=True)
class Http1Response:
    """A response whose body is read inside the block of its request."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    connection: Http1Connection

    def aiter_stream(self) -> AsyncIterator[bytes]:
        """The pieces of the body; raises httpcore's exceptions."""
        return self.connection.body()


class PooledConnection:
    """A connection of the pool and what the pool knows of it."""

    def __init__(
        self, connection: Http1Connection, origin: tuple[str, str, int], expires: Callable[[], bool]
    ) -> None:
        self.connection = connection
        self.origin = origin
        self.idle_since_s: float | None = None
        """None while it carries a call."""
        self.has_expired = expires

    def is_idle(self) -> bool:
        """Whether it carries no call."""
        return self.idle_since_s is not None

    def is_closed(self) -> bool:
        """Whether either side has closed it."""
        return self.connection.is_over

    async def aclose(self) -> None:
        """Close it."""
        await self.connection.close()


class Http1Pool:
    """Connections to one upstream. Owner: whoever made it must `aclose` it."""

    def __init__(
        self, upstream: Upstream, tls: ssl.SSLContext, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._upstream = upstream
        self._tls = tls
        self._now = now
        self._places = asyncio.Semaphore(upstream.most_connections)
        self._pooled: list[PooledConnection] = []
        """The newest last."""

    @property
    def connections(self) -> Sequence[PooledConnection]:
        """Those that neither side has closed."""
        self._pooled = [each for each in self._pooled if not each.is_closed()]
        return self._pooled

    @contextlib.asynccontextmanager
    async def post(
        self,
        url: str,
        headers: Sequence[tuple[str, str]],
        content: bytes,
        timeouts: Mapping[str, float],
        waits: Waits,
    ) -> AsyncIterator[Http1Response]:
        """One request; its response inside the block. Leaving the block before the body has ended
        closes the connection. Raises httpcore's exceptions.
        """
        target = _target(url)
        head = _head(target, headers, len(content))
        await self._take_place(timeouts.get("pool"))
        pooled = None
        try:
            waits.stop_waiting()
            pooled = await self._take(target, timeouts.get("connect"), waits)
            pooled.connection.send(head, content)
            status, response_headers = await pooled.connection.head()
            yield Http1Response(status, response_headers, pooled.connection)
        finally:
            if pooled is not None:
                self._give_back(pooled)
            self._places.release()

    async def _take_place(self, timeout_s: float | None) -> None:
        if not self._places.locked():
            await self._places.acquire()
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._places.acquire()
        except TimeoutError as error:
            raise httpcore.PoolTimeout(error) from error

    async def _take(
        self, target: Target, connect_s: float | None, waits: Waits
    ) -> PooledConnection:
        for pooled in reversed(self.connections):
            if pooled.is_idle() and pooled.origin == target.origin:
                if not pooled.has_expired() and pooled.connection.is_quiet():
                    pooled.idle_since_s = None
                    return pooled
                pooled.connection.cut()
        self._make_room()
        try:
            async with asyncio.timeout(connect_s):
                connection = await self._connect(target)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(error) from error
        except (OSError, ssl.SSLError) as error:
            raise httpcore.ConnectError(error) from error
        waits.connected()
        return self._pool(connection, target)

    def _pool(self, connection: Http1Connection, target: Target) -> PooledConnection:
        def expires() -> bool:
            idle_s = pooled.idle_since_s
            return idle_s is not None and self._now() > idle_s + self._upstream.keepalive_s

        pooled = PooledConnection(connection, target.origin, expires)
        self._pooled.append(pooled)
        return pooled

    def _make_room(self) -> None:
        """Close the oldest idle connection, to another host, where there are as many as may be."""
        connections = self.connections
        if len(connections) >= self._upstream.most_connections:
            oldest = next((each for each in connections if each.is_idle()), None)
            if oldest is not None:
                oldest.connection.cut()

    async def _connect(self, target: Target) -> Http1Connection:
        loop = asyncio.get_running_loop()
        addresses = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        connected = await start_connection(
            addresses, happy_eyeballs_delay=HAPPY_EYEBALLS_DELAY_S, interleave=1
        )
        try:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            over_tls = target.scheme == "https"
            _, connection = await loop.create_connection(
                Http1Connection,
                sock=connected,
                ssl=self._tls if over_tls else None,
                server_hostname=target.host if over_tls else None,
            )
        except BaseException:
            connected.close()
            raise
        return connection

    def _give_back(self, pooled: PooledConnection) -> None:
        """Keep the connection where another exchange can follow and there are not too many."""
        most = self._upstream.kept_connections
        too_many = len(self._pooled) > most and len(self.connections) > most
        if pooled.connection.is_reusable and not too_many:
            pooled.idle_since_s = self._now()
        else:
            pooled.connection.cut()

    async def aclose(self) -> None:
        """Close every connection."""
        await asyncio.gather(*(each.aclose() for each in self.connections))


@functools.lru_cache(maxsize=256)
def _target(url: str) -> Target:
    """The parts of an address, which is one of a model's few."""
    parts = urlsplit(url)
    port = parts.port or DEFAULT_PORTS[parts.scheme]
    path = parts.path or "/"
    host = parts.hostname or ""
    named = f"[{host}]" if ":" in host else host
    header = named if port == DEFAULT_PORTS[parts.scheme] else f"{named}:{port}"
    return Target(
        parts.scheme, host, port, f"{path}?{parts.query}" if parts.query else path, header
    )


def _head(target: Target, headers: Sequence[tuple[str, str]], content_bytes: int) -> bytes:
    """The request's head.

    Raises:
        httpcore.LocalProtocolError: a header's text would end it.
    """
    lines = [f"POST {target.path} HTTP/1.1"]
    names = {name.lower() for name, _ in headers}
    if "host" not in names:
        lines.append(f"host: {target.host_header}")
    if "content-length" not in names:
        lines.append(f"content-length: {content_bytes}")
    lines += [f"{name}: {text}" for name, text in headers]
    if any(NO_HEADER_TEXT.search(line) for line in lines):
        raise httpcore.LocalProtocolError("a header holds the end of a line")
    try:
        return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")
    except UnicodeEncodeError:
        raise httpcore.LocalProtocolError("a header holds a character beyond ASCII") from None
