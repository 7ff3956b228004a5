"""A telemetry service in this process, on a free port, and spans to make trees of."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
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
class RunningTelemetry:
    """Where the service is, and a peer to query it by."""

    address: str
    peer: Peer


@contextlib.asynccontextmanager
async def running(
    folder: Path, clock: Clock | None = None, **settings: Any
) -> AsyncIterator[RunningTelemetry]:
    """A telemetry service for the length of the block."""
    values: dict[str, Any] = {
        "listen": "127.0.0.1:0",
        "internal_token": TOKEN,
        "prometheus_listen": "",
        "otlp_http_listen": "",
        "home": folder,
        **settings,
    }
    made = TelemetrySettings(**values, grace_s=0)
    async with serving(build(made, outside_for_tests(made, clock=clock)), made) as address:
        peer = UnaryPeer(open_channel(address), SERVICE, token=TOKEN)
        try:
            yield RunningTelemetry(address, peer)
        finally:
            await peer.close()


@pytest.fixture
async def telemetry(tmp_path: Path) -> AsyncIterator[RunningTelemetry]:
    async with running(tmp_path) as service:
        yield service


def span(
    name: str,
    start_ns: int,
    end_ns: int,
    parent: str = "",
    *,
    source: Source = LOCAL,
    kind: str = "internal",
    error: str = "",
    **attributes: Value,
) -> SpanView:
    """A span whose identifier is its name; `a__b=1` is the attribute `a.b`."""
    named = {key.replace("__", "."): value for key, value in attributes.items()}
    return SpanView(name, parent, source, name, kind, start_ns, end_ns, error, named)
