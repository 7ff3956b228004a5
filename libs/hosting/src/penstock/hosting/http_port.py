"""An HTTP port: an ASGI application by uvicorn, without uvicorn's own signal handlers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

import uvicorn
from penstock.hosting.http_connection import (
    BoundedConnection,
    ConnectionLimits,
    connection_class,
)
from penstock.service.clock import until_tick_s
from penstock.service.program import CannotStart
from penstock.service.tls_files import TlsSource, reloading_context
from uvicorn.server import ServerState

log = logging.getLogger(__name__)
DEFAULT_LIMITS = ConnectionLimits()
SWEEP_S = 2.0
"""Seconds between two looks at connections whose clients may have stopped to read."""


class HttpPort:
    """Serves an application. Owner: whoever started it must `stop` it.

    Args:
        listen: `host:port`.
        app: an ASGI application.
        setting: the variable to change where the address cannot be bound.
        shared: whether other cells serve on the same address (SO_REUSEPORT).
        tls: the certificate, for HTTPS only.
        demands_certificate: whether a caller over TLS needs a certificate of the authorities.
        limits: of each connection.
    """

    def __init__(
        self,
        listen: str,
        app: Any,
        setting: str = "PENSTOCK_LISTEN",
        *,
        shared: bool = False,
        tls: TlsSource | None = None,
        demands_certificate: bool = False,
        limits: ConnectionLimits = DEFAULT_LIMITS,
    ) -> None:
        self.address = listen
        self._setting = setting
        self._shared = shared
        config = uvicorn.Config(
            app,
            log_level="warning",
            timeout_graceful_shutdown=1,
            timeout_keep_alive=limits.idle_s,  # type: ignore[arg-type]  # any number of seconds
            http=connection_class(limits),
            server_header=False,
            # Nobody reads who stands behind a proxy, and no requests are logged.
            proxy_headers=False,
            access_log=False,
        )
        self._scheme = "http" if tls is None else "https"
        if tls is not None:
            context = reloading_context(tls, demands_certificate=demands_certificate)
            config.ssl_context_factory = lambda *_: context
        self._server = _Server(config)
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Bind and serve.

        Raises:
            CannotStart: the address cannot be bound.
        """
        host, _, port = self.address.rpartition(":")
        listener = _bind(host.strip("[]"), port, self._setting, self._shared)
        self.address = f"{host}:{listener.getsockname()[1]}"
        log.info("serving %s://%s/", self._scheme, self.address)
        serving = self._server.serve(sockets=[listener])
        self._serving = asyncio.get_running_loop().create_task(serving, name="http")

    async def stop(self, grace_s: float | None = None, hurry: asyncio.Event | None = None) -> None:
        """Refuse new requests, give those in flight uvicorn's own grace, end."""
        self._server.end()
        if self._serving is not None:
            await asyncio.wait([self._serving])


class _Server(uvicorn.Server):
    """Leaves signals to the service: uvicorn's own handlers raise them again after the end, and a
    clean stop would look like a crash.

    Sleeps but for a look at its connections now and then, where uvicorn's own looks ten times a
    second whether it is to end.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.server_state = _DatedState()
        self._ending = asyncio.Event()

    def end(self) -> None:
        """Refuse new requests, give those in flight their grace, end."""
        self.should_exit = True
        self._ending.set()

    async def main_loop(self) -> None:
        while not self._ending.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), until_tick_s(time.monotonic(), SWEEP_S))
            self._cut_unread()

    def _cut_unread(self) -> None:
        for connection in list(self.server_state.connections):
            if isinstance(connection, BoundedConnection):
                connection.cut_unread()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _DatedState(ServerState):
    """What connections share, with the date of responses (RFC 9110, 6.6.1) as they are sent."""

    def __init__(self) -> None:
        super().__init__()
        self._second = 0
        self._headers: list[tuple[bytes, bytes]] = []

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers of a response that is sent now."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._headers = [(b"date", formatdate(second, usegmt=True).encode())]
        return self._headers

    @default_headers.setter
    def default_headers(self, _: list[tuple[bytes, bytes]]) -> None:
        """uvicorn sets an empty list at the start."""


def _bind(host: str, port: str, setting: str, shared: bool) -> socket.socket:
    try:
        return socket.create_server((host, int(port)), reuse_port=shared)
    except (OSError, ValueError):
        raise CannotStart(
            f"cannot listen on {host}:{port}: it is in use or no address; set {setting}"
        ) from None
