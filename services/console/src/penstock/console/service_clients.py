"""Connections to the services that the console asks, over their own gRPC APIs.

A service that does not answer is named in the view that needs it; the others go on.
"""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.message import Message
from penstock.api.batcher.v1 import batcher_pb2
from penstock.api.cache.v1 import cache_pb2
from penstock.api.limiter.v1 import limiter_pb2
from penstock.api.router.v1 import router_pb2
from penstock.api.scaler.v1 import scaler_pb2
from penstock.api.telemetry.v1 import telemetry_pb2
from penstock.console.settings import ConsoleSettings
from penstock.hosting.outside import Outside, dial_all
from penstock.otel.spans import format_traceparent
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import Fault
from penstock.rpc.peers.stream import Peer, open_channel
from penstock.rpc.peers.unary import UnaryPeer

TELEMETRY = telemetry_pb2.DESCRIPTOR.services_by_name["TelemetryService"]
ROUTER = router_pb2.DESCRIPTOR.services_by_name["RouterService"]
BATCHER = batcher_pb2.DESCRIPTOR.services_by_name["BatcherService"]
LIMITER = limiter_pb2.DESCRIPTOR.services_by_name["LimiterService"]
CACHE = cache_pb2.DESCRIPTOR.services_by_name["CacheService"]
SCALER = scaler_pb2.DESCRIPTOR.services_by_name["ScalerService"]
TIMEOUT_S = 3.0
M = TypeVar("M", bound=Message)


class ServiceClients:
    """A connection to each service. Owner: whoever made them closes them."""

    def __init__(self, settings: ConsoleSettings, outside: Outside) -> None:
        bearer = (("authorization", f"Bearer {settings.api_key}"),) if settings.api_key else ()
        router_channel = open_channel(settings.router_address, settings.tls)
        self._peers: dict[str, Peer] = {
            "telemetry": outside.dial(settings.telemetry_address, TELEMETRY),
            "router": UnaryPeer(router_channel, ROUTER, metadata=bearer, clock=outside.clock),
            "batcher": dial_all(outside.dial, settings.batcher_address, BATCHER),
            "limiter": outside.dial(settings.limiter_address, LIMITER),
            "cache": outside.dial(settings.cache_address, CACHE),
            "scaler": outside.dial(settings.scaler_address, SCALER),
        }
        self._clock = outside.clock
        self._rng = outside.rng
        self._failures: dict[str, str] = {}

    async def call(
        self, service: str, method: str, request: Message, response: type[M], tenant: str = ""
    ) -> M | None:
        """Call a service; None when it does not answer, and `failure` says why.

        Args:
            service: such as `router`.
            method: name of the RPC.
            request: its request.
            response: type of its response.
            tenant: on whose behalf; empty: nobody's.
        """
        try:
            message = await self._peers[service].call(method, request, self._call(tenant))
        except Fault as fault:
            self._failures[service] = fault.message
            return None
        self._failures.pop(service, None)
        assert isinstance(message, response)
        return message

    def failure(self, service: str) -> str | None:
        """Why a service did not answer its last call; None when it did."""
        return self._failures.get(service)

    def _call(self, tenant: str) -> Call:
        """A call that leaves no trace: its parent is not sampled."""
        trace_id, span_id = self._rng.getrandbits(128) | 1, self._rng.getrandbits(64) | 1
        return Call(
            Principal(tenant),
            deadline_s=self._clock.monotonic() + TIMEOUT_S,
            traceparent=format_traceparent(trace_id, span_id, sampled=False),
        )

    async def close(self) -> None:
        """Close the connections."""
        for peer in self._peers.values():
            await peer.close()
