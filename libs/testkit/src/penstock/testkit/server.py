"""A real server on a free port or socket for one test, and peers that call it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from google.protobuf.descriptor import ServiceDescriptor
from penstock.hosting.grpc_server import GrpcServer
from penstock.rpc.call import Call
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.peers.in_process import InProcessPeer, LocalEndpoint
from penstock.rpc.peers.stream import Peer, connect, open_channel
from penstock.rpc.peers.unary import UnaryPeer
from penstock.service.clock import Clock
from penstock.service.settings import ServiceSettings

TOKEN = "the-internal-token-of-a-test"
Transport = Literal[
    "in-process",
    "callers-task",
    "frame-stream",
    "unix-stream",
    "tcp-stream",
    "unix-unary",
    "tcp-unary",
]
TRANSPORTS: tuple[Transport, ...] = get_args(Transport)


@contextlib.asynccontextmanager
async def serving(
    endpoints: Sequence[Endpoint], listen: str = "127.0.0.1:0", **options: object
) -> AsyncIterator[GrpcServer]:
    """A started server, stopped without grace afterwards; `options` are those of GrpcServer."""
    settings = ServiceSettings(listen=listen)
    server = GrpcServer("test", settings, endpoints, **options)  # type: ignore[arg-type]  # any
    await server.start()
    try:
        yield server
    finally:
        await server.stop(None)


@contextlib.asynccontextmanager
async def peer_over(
    transport: Transport, endpoint: Endpoint, token: str = TOKEN
) -> AsyncIterator[Peer]:
    """A peer that calls `endpoint` over a transport; server and connection end with the block."""
    if transport == "callers-task":
        names = frozenset(method.name for method in endpoint.service.methods)
        endpoint = replace(endpoint, in_callers_task=names)
    if transport in ("in-process", "callers-task"):
        async with _peer_in_process(endpoint, token) as peer:
            yield peer
        return
    with tempfile.TemporaryDirectory(prefix="ps-") as folder:
        listen = f"unix:{Path(folder) / 's'}" if transport.startswith("unix") else "127.0.0.1:0"
        async with serving([endpoint], listen) as server:
            peer = _remote_peer(transport, server.address, endpoint, token)
            yield peer
            await peer.close()


@contextlib.asynccontextmanager
async def _peer_in_process(endpoint: Endpoint, token: str) -> AsyncIterator[Peer]:
    local = LocalEndpoint(endpoint)
    local.open()
    peer = InProcessPeer(endpoint.service, lambda: local, token=token)
    yield peer
    await peer.close()
    await local.close()


def peer_to(
    service: ServiceDescriptor, servicer: object, clock: Clock | None = None
) -> InProcessPeer:
    """A peer that calls a servicer of this process, which believes whoever calls."""
    local = LocalEndpoint(Endpoint(service, servicer, lambda _: Call()), clock=clock)
    local.open()
    return InProcessPeer(service, lambda: local, clock=clock)


def _remote_peer(transport: Transport, address: str, endpoint: Endpoint, token: str) -> Peer:
    if transport.endswith("stream"):
        by_frames = transport == "frame-stream"
        return connect(address, endpoint.service, token=token, divides=True, by_frames=by_frames)
    return UnaryPeer(open_channel(address), endpoint.service, token=token, divides=True)
