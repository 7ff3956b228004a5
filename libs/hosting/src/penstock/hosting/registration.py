"""An instance's registration within the life of its service."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.hosting.outside import Dial
from penstock.rpc.registration import SERVICE, Registrar
from penstock.service.clock import Clock


class Registration:
    """Registers with a router once the address is known, and leaves before the service stops.

    Args:
        router_addresses: see Registrar; empty registers nowhere.
        instance_at: what is registered, for the address that is served.
        dial: connects to the registry at an address.
        load: the load now, sent with each heartbeat.
        models: the models now, where they may change.
    """

    def __init__(
        self,
        router_addresses: str,
        instance_at: Callable[[str], router_pb2.Instance],
        dial: Dial,
        clock: Clock,
        load: Callable[[], common_pb2.LoadReport],
        models: Callable[[], Sequence[inference_pb2.Model]] | None = None,
    ) -> None:
        self._router_addresses = router_addresses
        self._instance_at = instance_at
        self._dial, self._clock, self._load, self._models = dial, clock, load, models
        self._registrar: Registrar | None = None

    async def start(self, address: str) -> None:
        """Register in the background, for as long as it takes."""
        if self._router_addresses:
            self._registrar = Registrar(
                self._router_addresses,
                self._instance_at(address),
                "",
                self._load,
                self._clock,
                self._models,
                lambda where: self._dial(where, SERVICE),
            )
            self._registrar.start()

    async def leave(self) -> None:
        """Deregister, where it is registered."""
        if self._registrar is not None:
            await self._registrar.leave()
