"""The services that the console asks, over their own gRPC APIs.

A service that is away gives None and is named, never an error page.
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
from penstock.hosting.outside import Outside
from penstock.otel.trace_context import format_traceparent
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
    """Peers to the services. Owner: the console's main, which closes it."""

    def __init__(self, settings: ConsoleSettings, outside: Outside) -> None:
        bearer = (("authorization", f"Bearer {settings.api_key}"),) if settings.api_key else ()
        channel, clock = open_channel(settings.router_address), outside.clock
        self._peers: dict[str, Peer] = {
            "telemetry": outside.dial(settings.telemetry_address, TELEMETRY),
            "router": UnaryPeer(channel, ROUTER, metadata=bearer, clock=clock),
            "batcher": outside.dial(settings.batcher_address, BATCHER),
            "limiter": outside.dial(settings.limiter_address, LIMITER),
            "cache": outside.dial(settings.cache_address, CACHE),
            "scaler": outside.dial(settings.scaler_address, SCALER),
        }
        self._clock, self._rng = clock, outside.rng
        self.failures: dict[str, str] = {}
        """Service → why it gave no answer the last time."""

    async def ask(
        self, service: str, method: str, request: Message, answer: type[M], tenant: str = ""
    ) -> M | None:
        """Ask a question, on a tenant's behalf where one is given; None when there is no answer,
        and `failures` says why.
        """
        try:
            # Looking on is nobody's request: a parent that is not sampled begins no trace.
            parent = format_traceparent(
                self._rng.getrandbits(128) | 1, self._rng.getrandbits(64) | 1, False
            )
            ends_s = self._clock.monotonic() + TIMEOUT_S
            call = Call(Principal(tenant), deadline_s=ends_s, traceparent=parent)
            found = await self._peers[service].call(method, request, call)
        except Fault as fault:
            self.failures[service] = fault.message
            return None
        self.failures.pop(service, None)
        assert isinstance(found, answer)
        return found

    async def close(self) -> None:
        """Give up the connections."""
        for peer in self._peers.values():
            await peer.close()
