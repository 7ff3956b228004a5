"""A telemetry service in this process, on a free port, and spans to send it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.hosting.life import serving
from penstock.rpc.peers.stream import Peer, open_channel
from penstock.rpc.peers.unary import UnaryPeer
from penstock.service.clock import Clock
from penstock.telemetry.build import SERVICE, build
from penstock.telemetry.settings import TelemetrySettings
from penstock.telemetry.spans.spans import Source, SpanView, Value
from penstock.testkit.outside import outside_for_tests
from penstock.testkit.server import TOKEN

LOCAL = Source("router", "r1")


@dataclass
class Running:
    """Where the service is, and a peer to ask it."""

    address: str
    peer: Peer


@contextlib.asynccontextmanager
async def running(
    folder: Path, clock: Clock | None = None, **settings: object
) -> AsyncIterator[Running]:
    """A telemetry service for the length of the block."""
    told = {
        "listen": "127.0.0.1:0",
        "internal_token": TOKEN,
        "prometheus_listen": "",
        "home": folder,
        **settings,
    }
    made = TelemetrySettings(**told, grace_s=0)  # type: ignore[arg-type]
    async with serving(build(made, outside_for_tests(made, clock=clock)), made) as address:
        peer = UnaryPeer(open_channel(address), SERVICE, token=TOKEN)
        try:
            yield Running(address, peer)
        finally:
            await peer.close()


@pytest.fixture
async def telemetry(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path) as service:
        yield service


def span(
    name: str,
    start: int,
    end: int,
    parent: str = "",
    *,
    source: Source = LOCAL,
    kind: str = "internal",
    error: str = "",
    **attributes: Value,
) -> SpanView:
    """A span whose identifier is its name; times in nanoseconds."""
    said = {key.replace("__", "."): value for key, value in attributes.items()}
    return SpanView(name, parent, source, name, kind, start, end, error, said)


def names(trace: pb.GetTraceResponse) -> Iterator[str]:
    return (held.name for held in trace.spans)
