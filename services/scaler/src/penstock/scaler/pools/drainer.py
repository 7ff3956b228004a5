"""Drains instances at the router before they are stopped."""

from __future__ import annotations

import logging

from penstock.api.router.v1 import router_pb2
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault
from penstock.rpc.peers.stream import Peer
from penstock.scaler.pools.demand_source import RPC_TIMEOUT_S
from penstock.service.clock import Clock

log = logging.getLogger(__name__)

POLL_S = 0.2


class Drainer:
    """Drains instances at the router.

    Args:
        registry: the router's registry.
        timeout_s: longest wait for requests in flight; longer streams are cut when the instance
            stops.
    """

    def __init__(self, registry: Peer, clock: Clock, timeout_s: float = 30.0) -> None:
        self._registry = registry
        self._clock = clock
        self._timeout_s = timeout_s

    async def drain(self, instance: str, reason: str) -> None:
        """Stop new requests to an instance and wait until it has none in flight.

        Returns at once where the router is away or does not know the instance, which leaves the
        registry by itself when it stops.
        """
        end_s = self._clock.monotonic() + self._timeout_s
        while self._clock.monotonic() < end_s and await self.stop_requests(instance, reason):
            await self._clock.sleep(POLL_S)

    async def stop_requests(self, instance: str, reason: str) -> int | None:
        """Stop new requests to an instance.

        Returns:
            Requests in flight there; None where the router is away or does not know the instance.
        """
        request = router_pb2.DrainRequest(instance_id=instance, reason=reason)
        call = Call(deadline_s=self._clock.monotonic() + RPC_TIMEOUT_S)
        try:
            answer: router_pb2.DrainResponse = await self._registry.call("Drain", request, call)
        except Fault as fault:
            log.warning("%s cannot be drained: %s", instance, fault)
            return None
        return answer.in_flight
