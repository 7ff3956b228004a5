"""The assembly of the edge: a connection to the router, and the HTTP APIs on one port."""

from __future__ import annotations

from penstock.api.router.v1 import router_pb2
from penstock.edge.app import EdgeApp
from penstock.edge.openai_responses.response_keeper import ResponseKeeper
from penstock.edge.openai_responses.response_store import Bounds, RedisResponseStore
from penstock.edge.router_calls import RouterCalls
from penstock.edge.settings import EdgeSettings
from penstock.hosting.assembly import Assembly
from penstock.hosting.http_port import HttpPort
from penstock.hosting.outside import Outside
from penstock.hosting.service import Service

NAME = "edge"
ROUTER = router_pb2.DESCRIPTOR.services_by_name["RouterService"]


def build(settings: EdgeSettings, outside: Outside) -> Service:
    """Make the edge from its settings and the outside world."""
    peer = outside.dial_plainly(settings.router_address, ROUTER)
    router = RouterCalls(peer, settings.internal_token)
    store = outside.open_store(settings.cache_url) if settings.cache_url else None
    responses = ResponseKeeper(
        None if store is None else RedisResponseStore(store, bounds(settings))
    )
    app = EdgeApp(router, responses, settings, outside.clock, outside.telemetry)
    port = HttpPort(settings.listen, app, shared=bool(settings.cell))

    async def close() -> None:
        await router.close()
        if store is not None:
            await store.aclose()

    return Service(NAME, [port], drain=lambda: app.draining.drain(settings.grace_s), close=close)


def bounds(settings: EdgeSettings) -> Bounds:
    """How much is kept of responses."""
    return Bounds(settings.response_ttl_s, settings.max_response_bytes)


ASSEMBLY = Assembly(NAME, EdgeSettings, build, "The same, for clients of HTTP APIs?", edge=True)
