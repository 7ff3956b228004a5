"""One request while it is served, and the reading of its body."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from penstock.api.router.v1 import router_pb2
from penstock.edge.call_options import PREFIX
from penstock.edge.caller import BodyShare
from penstock.edge.http_exchange import HttpExchange
from penstock.edge.router_calls import RouterCalls
from penstock.edge.settings import EdgeSettings
from penstock.rpc.call import Call

UNKNOWN_KEYS_BYTES = 1 << 20
"""A larger body is read only for a key that the router knows."""


@dataclass(frozen=True)
class Served:
    """One request while it is served.

    Attributes:
        exchange: the request, and the way to answer it.
        call: deadline and trace.
        key: the caller's.
        number: the request's own, in hexadecimal.
        share: counts the bytes of its body.
    """

    exchange: HttpExchange
    call: Call
    key: str = field(repr=False)
    number: str
    share: BodyShare

    def name_ignored(self, ignored: tuple[str, ...]) -> None:
        """Tell the caller which fields of its request have no effect."""
        if ignored:
            self.exchange.add_header(f"{PREFIX}ignored", ", ".join(ignored))


async def available(router: RouterCalls, served: Served) -> list[router_pb2.AvailableModel]:
    """The models that a request's key may use.

    Raises:
        Fault: UNAUTHENTICATED where the key is not in force.
    """
    request = router_pb2.ListModelsRequest()
    response = await router.call("ListModels", request, served.call, served.key)
    return list(response.models)


class Bodies:
    """Reads bodies; only a key in force may send a large one."""

    def __init__(self, router: RouterCalls, settings: EdgeSettings) -> None:
        self._router = router
        self._settings = settings

    async def read(self, served: Served) -> bytes:
        """The body of a request.

        Raises:
            Refused: bodies in flight have too many bytes.
            Fault: UNAUTHENTICATED.
            BodyTooLarge, BodyTooSlow, ClientLeft: as `HttpExchange.body`.
        """
        is_known = False

        async def admit(size: int) -> None:
            nonlocal is_known
            served.share.grow(size)
            if size > UNKNOWN_KEYS_BYTES and not is_known:
                await available(self._router, served)
                is_known = True

        settings = self._settings
        return await served.exchange.body(settings.max_body_bytes, settings.body_timeout_s, admit)


Act = Callable[[Served], Awaitable[None]]
"""Answers a request."""
ByMethod = Mapping[str, Act]
"""What answers the methods of a path."""
