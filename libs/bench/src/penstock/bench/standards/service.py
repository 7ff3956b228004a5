"""A telemetry service in this process with all its ports, for what speaks to it over the wire."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
from penstock.hosting.life import serving
from penstock.rpc.peers.stream import open_channel
from penstock.rpc.peers.unary import UnaryPeer
from penstock.service.free_ports import free_address
from penstock.telemetry.build import SERVICE, build
from penstock.telemetry.settings import TelemetrySettings
from penstock.testkit.outside import outside_for_tests

TOKEN = "token-of-the-standards"
EXPORT_METHODS = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}


@dataclass(frozen=True)
class RunningTelemetry:
    """Where the service is, and clients of it.

    Attributes:
        address: `host:port` of OTLP over gRPC and of the queries.
        http: `host:port` of OTLP over HTTP.
        prometheus: `host:port` of `/metrics`.
        peer: asks its queries.
        channel: sends what no stub is generated for.
        client: of HTTP.
    """

    address: str
    http: str
    prometheus: str
    peer: UnaryPeer
    channel: grpc.aio.Channel
    client: httpx.AsyncClient


@contextlib.asynccontextmanager
async def running_telemetry(folder: Path, **settings: Any) -> AsyncIterator[RunningTelemetry]:
    """A service for the length of the block."""
    values: dict[str, Any] = {
        "listen": "127.0.0.1:0",
        "otlp_http_listen": free_address(),
        "prometheus_listen": free_address(),
        "internal_token": TOKEN,
        "home": folder,
        "grace_s": 0,
        **settings,
    }
    made = TelemetrySettings(**values)
    async with (
        serving(build(made, outside_for_tests(made)), made) as address,
        grpc.aio.insecure_channel(address) as channel,
        httpx.AsyncClient(trust_env=False, timeout=30.0) as client,
    ):
        peer = UnaryPeer(open_channel(address), SERVICE, token=TOKEN)
        try:
            yield RunningTelemetry(
                address, made.otlp_http_listen, made.prometheus_listen, peer, channel, client
            )
        finally:
            await peer.close()
