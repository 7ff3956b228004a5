"""TLS for gRPC: credentials of servers and channels by files that are read again when they change.

gRPC itself takes TLS 1.2 or newer and never falls back to plaintext. A server reads its files with
each handshake. A channel's credentials are fixed when it is opened, so `RenewingChannel` opens
another one for the calls that begin after a change.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import grpc
from penstock.service.tls_files import TlsMaterial, TlsSource

RENEW_GRACE_S = 600.0
"""Seconds that calls in flight on a channel with an older certificate get to end."""
LOOK_S = 1.0
"""Between two looks of a channel at its files: looking before each call would cost as much as the
call's own encryption, and a certificate is renewed long before the older one ends.
"""


def server_credentials(source: TlsSource, *, demands_certificate: bool) -> grpc.ServerCredentials:
    """The credentials of a port; each handshake uses the newest material.

    Args:
        source: the server's own certificate, and whom clients' must come from.
        demands_certificate: whether a client without a certificate is refused (mutual TLS).
    """
    seen = [source.generation]

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        material = source.current()
        if seen[0] == source.generation:
            return None
        seen[0] = source.generation
        return _configuration(material)

    first = _configuration(source.current())
    return grpc.dynamic_ssl_server_credentials(first, fetch, demands_certificate)


def _configuration(material: TlsMaterial) -> grpc.ServerCertificateConfiguration:
    pair = [(material.key, material.certificate)]
    return grpc.ssl_server_certificate_configuration(pair, material.authorities or None)


def channel_credentials(material: TlsMaterial) -> grpc.ChannelCredentials:
    """The credentials of a client; without authorities the system's are believed."""
    return grpc.ssl_channel_credentials(
        material.authorities or None, material.key or None, material.certificate or None
    )


class RenewingChannel(grpc.aio.Channel):
    """A channel over TLS whose new calls use the newest certificate.

    Args:
        address: `host:port` or `unix:/path`.
        source: own certificate, where there is one, and whom the server's must come from.
        options: of the channel.
    """

    def __init__(
        self, address: str, source: TlsSource, options: Sequence[tuple[str, Any]] = ()
    ) -> None:
        self._address, self._source, self._options = address, source, tuple(options)
        self._generation = -1
        self._looked_at_s = 0.0
        self._channel = self._open()
        self._leaving: set[asyncio.Task[None]] = set()

    def _open(self) -> grpc.aio.Channel:
        material = self._source.current()
        self._generation = self._source.generation
        credentials = channel_credentials(material)
        return grpc.aio.secure_channel(self._address, credentials, options=self._options)

    def _current(self) -> grpc.aio.Channel:
        """The channel for a call that begins now."""
        now = time.monotonic()
        if now - self._looked_at_s >= LOOK_S:
            self._looked_at_s = now
            self._source.current()
        if self._generation != self._source.generation:
            old, self._channel = self._channel, self._open()
            leaving = asyncio.get_running_loop().create_task(old.close(RENEW_GRACE_S))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
        return self._channel

    def _method(self, kind: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        made: list[tuple[grpc.aio.Channel, Callable[..., Any]]] = []

        def call(*args: Any, **kwargs: Any) -> Any:
            channel = self._current()
            if not made or made[-1][0] is not channel:
                made[:] = [(channel, getattr(channel, kind)(*arguments, **named))]
            return made[-1][1](*args, **kwargs)

        return call

    def unary_unary(self, *arguments: Any, **named: Any) -> Any:
        """See grpc.aio.Channel."""
        return self._method("unary_unary", arguments, named)

    def unary_stream(self, *arguments: Any, **named: Any) -> Any:
        """See grpc.aio.Channel."""
        return self._method("unary_stream", arguments, named)

    def stream_unary(self, *arguments: Any, **named: Any) -> Any:
        """See grpc.aio.Channel."""
        return self._method("stream_unary", arguments, named)

    def stream_stream(self, *arguments: Any, **named: Any) -> Any:
        """See grpc.aio.Channel."""
        return self._method("stream_stream", arguments, named)

    async def close(self, grace: float | None = None) -> None:
        """Close it, and those with an older certificate."""
        leaving = tuple(self._leaving)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        await self._channel.close(grace)

    async def __aenter__(self) -> RenewingChannel:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """See grpc.aio.Channel."""
        return self._channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """See grpc.aio.Channel."""
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """See grpc.aio.Channel."""
        await self._channel.channel_ready()
