"""The address that belongs to one cell alone, beside those that several cells share.

Where several cells listen on one address, the kernel chooses which of them gets a connection. An
instance's queue is in one cell's batcher only, so others have to be able to reach that one.
"""

from __future__ import annotations

import asyncio

from penstock.hosting.grpc_server import GrpcServer
from penstock.hosting.outside import Outside
from penstock.hosting.service import Port, ReportsStalls, Service
from penstock.service.settings import ServiceSettings


class CellPort:
    """A service's own port together with the same endpoints at the cell's own address.

    Its health there is that of the whole cell: NOT_SERVING until `cell_is_complete`.
    """

    def __init__(self, service: Service, settings: ServiceSettings, outside: Outside) -> None:
        self._own: Port = service.ports[-1]
        alone = settings.model_copy(update={"listen": settings.cell_address, "cell": ""})
        self._private = GrpcServer(
            f"{service.name} of {settings.cell}",
            alone,
            service.endpoints,
            tracer=outside.telemetry,
            clock=outside.clock,
            serving_from_start=False,
        )

    @property
    def address(self) -> str:
        """The address that cells share."""
        return self._own.address

    async def start(self) -> None:
        """Bind and serve both; raises CannotStart."""
        await self._private.start()
        try:
            await self._own.start()
        except BaseException:
            await self._private.stop()
            raise

    async def cell_is_complete(self) -> None:
        """Say that every service of the cell serves."""
        await self._private.set_serving(True)

    async def set_stalling(self, stalling: bool) -> None:
        """Tell at both addresses whether the event loop is stalling."""
        await self._private.set_stalling(stalling)
        if isinstance(self._own, ReportsStalls):
            await self._own.set_stalling(stalling)

    async def stop(self, grace_s: float | None = None, hurry: asyncio.Event | None = None) -> None:
        """Stop both, with one grace."""
        await asyncio.gather(self._own.stop(grace_s, hurry), self._private.stop(grace_s, hurry))
