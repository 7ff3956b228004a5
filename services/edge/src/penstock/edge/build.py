"""The assembly of the edge: a connection to the router, and the HTTP APIs on one port."""

from __future__ import annotations

from penstock.api.router.v1 import router_pb2
from penstock.edge.app import EdgeApp
from penstock.edge.openai_responses.response_keeper import ResponseKeeper
from penstock.edge.openai_responses.response_store import Bounds, RedisResponseStore
from penstock.edge.receipt_store import ReceiptBounds, RedisReceiptStore
from penstock.edge.receipts import Receipts
from penstock.edge.router_calls import RouterCalls
from penstock.edge.settings import EdgeSettings
from penstock.hosting.assembly import Assembly
from penstock.hosting.http_connection import ConnectionLimits
from penstock.hosting.http_port import HttpPort
from penstock.hosting.outside import Outside
from penstock.hosting.service import Service

NAME = "edge"
HEAD_ROOM_BYTES = 64 << 10
"""A head that exceeds the bound of headers by less than this is refused by the application, in its
caller's wire.
"""
ROUTER = router_pb2.DESCRIPTOR.services_by_name["RouterService"]


def build(settings: EdgeSettings, outside: Outside) -> Service:
    """Make the edge from its settings and the outside world."""
    router = RouterCalls(outside.dial_plainly(settings.router_address, ROUTER))
    store = outside.open_store(settings.cache_url) if settings.cache_url else None
    responses = ResponseKeeper(
        None if store is None else RedisResponseStore(store, bounds(settings))
    )
    receipts = Receipts(
        settings.kept_receipts,
        None if store is None else RedisReceiptStore(store, receipt_bounds(settings)),
    )
    app = EdgeApp(router, responses, receipts, settings, outside.clock, outside.telemetry)
    port = HttpPort(
        settings.listen,
        app,
        shared=bool(settings.cell),
        tls=settings.tls,
        limits=connection_limits(settings),
    )

    async def close() -> None:
        await router.close()
        await receipts.close()
        if store is not None:
            await store.aclose()

    return Service(NAME, [port], drain=lambda: app.draining.drain(settings.grace_s), close=close)


def connection_limits(settings: EdgeSettings) -> ConnectionLimits:
    """What each connection may take."""
    return ConnectionLimits(
        connections=settings.max_connections,
        idle_s=settings.idle_s,
        head_s=settings.header_timeout_s,
        head_bytes=settings.max_header_bytes + HEAD_ROOM_BYTES,
        unread_s=settings.send_timeout_s,
    )


def receipt_bounds(settings: EdgeSettings) -> ReceiptBounds:
    """How much is kept of receipts."""
    return ReceiptBounds(settings.receipt_ttl_s, settings.receipts_per_key)


def bounds(settings: EdgeSettings) -> Bounds:
    """How much is kept of responses."""
    return Bounds(settings.response_ttl_s, settings.max_response_bytes)


ASSEMBLY = Assembly(NAME, EdgeSettings, build, "The same, for clients of HTTP APIs?", edge=True)
