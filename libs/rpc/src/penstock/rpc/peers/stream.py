"""How one service calls another: one interface, and the connection that carries the calls.

`connect` gives the fastest way over the wire, the multiplexed item stream of `item_stream`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message
from penstock.rpc.auth import TOKEN_KEY
from penstock.rpc.call import Call
from penstock.rpc.credentials import RenewingChannel
from penstock.rpc.peers.item_stream_peer import ItemStreamPeer
from penstock.rpc.spans import NO_TRACER, Tracer
from penstock.service.clock import Clock, SystemClock
from penstock.service.tls_files import TlsSource

NO_PROXY = ("grpc.enable_http_proxy", 0)
"""An `http_proxy` in the environment is for the web, not for addresses of ours."""

CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    # How long an attempt to connect may take, despite its name: on a busy machine a handshake needs
    # more than 50 ms.
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 64 << 20),
    ("grpc.use_local_subchannel_pool", 1),
    NO_PROXY,
)


class Peer(Protocol):
    """A service that can be called.

    Every failure is raised as a Fault; cancelling the await cancels the work.
    """

    @property
    def responds(self) -> bool:
        """False while the peer is hung: it has answered no ping and not been heard of since. Calls
        then fail at once.
        """
        ...

    async def call(self, method: str, request: Message, call: Call) -> Any:
        """Call a unary RPC by its name and return its response message."""
        ...

    def stream(self, method: str, request: Message, call: Call) -> AsyncIterator[Any]:
        """Call a server-streaming RPC; closing the iterator cancels the work."""
        ...

    async def close(self) -> None:
        """Give up the connection; items in flight fail UNAVAILABLE."""
        ...


def open_channel(
    address: str,
    tls: TlsSource | None = None,
    expected_name: str = "",
    options: Sequence[tuple[str, Any]] = (),
) -> grpc.aio.Channel:
    """A channel to `host:port` or `unix:/path` with the settings of every internal hop.

    Args:
        address: where the server is.
        tls: own certificate and whom the server's must come from; None for plaintext.
        expected_name: the name that the server's certificate must have; empty: that of the address.
        options: of gRPC, beside those of every hop.
    """
    every = (*CHANNEL_OPTIONS, *options)
    if tls is None:
        return grpc.aio.insecure_channel(address, options=every)
    named = (("grpc.ssl_target_name_override", expected_name),) if expected_name else ()
    return RenewingChannel(address, tls, (*every, *named))


def connect(
    address: str,
    service: ServiceDescriptor,
    *,
    token: str = "",
    clock: Clock | None = None,
    tracer: Tracer = NO_TRACER,
    metadata: tuple[tuple[str, str], ...] = (),
    tls: TlsSource | None = None,
    expected_name: str = "",
    divides: bool = False,
    by_frames: bool = True,
) -> Peer:
    """A peer over one long-lived multiplexed stream, opened with the first call and again after it
    breaks.

    Args:
        address: `host:port` or `unix:/path`.
        service: the service's descriptor; it must declare `Exchange`.
        token: the internal token, for internal ports.
        metadata: sent when the stream opens, such as `authorization` for a public endpoint.
        tls, expected_name: see `open_channel`.
        divides: see `UnaryPeer`.
        by_frames: whether a service of this machine may be called over the socket beside its port,
            see `penstock.rpc.frame_connection`; over TLS none is.
    """
    sent = (*metadata, *(((TOKEN_KEY, token),) if token else ()))
    channel = open_channel(address, tls, expected_name)
    local_address = address if by_frames and tls is None else ""
    return ItemStreamPeer(
        channel,
        service,
        sent,
        clock or SystemClock(),
        tracer,
        divides=divides,
        local_address=local_address,
    )
