"""The assembly of the edge: a connection to the router, and the HTTP APIs on one port."""

from __future__ import annotations

from penstock.api.router.v1 import router_pb2
from penstock.edge.app import EdgeApp
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
    app = EdgeApp(router, settings, outside.clock, outside.telemetry)
    port = HttpPort(settings.listen, app, shared=bool(settings.cell))
    return Service(
        NAME, [port], drain=lambda: app.draining.drain(settings.grace_s), close=router.close
    )


ASSEMBLY = Assembly(NAME, EdgeSettings, build, "The same, for clients of HTTP APIs?", edge=True)
