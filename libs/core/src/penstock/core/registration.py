"""How an instance makes itself known to the router: register, heartbeat, register again when forgotten, drain at the end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from penstock.api.common.v1 import common_pb2
from penstock.api.router.v1 import router_pb2
from penstock.core.call import Call
from penstock.core.clock import Clock, SystemClock
from penstock.core.errors import Fault
from penstock.core.hop import Peer, UnaryPeer, open_channel

log = logging.getLogger(__name__)

REGISTRY = router_pb2.DESCRIPTOR.services_by_name["RegistryService"]
RETRY_S = (0.1, 2.0)
"""First and longest wait after a failed attempt."""


class Registrar:
    """Keeps one instance registered until `leave`. Owner of the connection to the router."""

    def __init__(
        self,
        router: str,
        instance: router_pb2.Instance,
        token: str,
        load: Callable[[], common_pb2.LoadReport],
        clock: Clock | None = None,
    ) -> None:
        self._peer: Peer = UnaryPeer(open_channel(router), REGISTRY, token=token)
        self._instance = instance
        self._load = load
        self._clock = clock or SystemClock()
        self._task: asyncio.Task[None] | None = None
        self._interval_s = 1.0

    def start(self) -> None:
        """Begin in the background; failures are logged once and tried again."""
        self._task = asyncio.create_task(self._run(), name="registrar")

    async def leave(self) -> None:
        """Tell the router to send nothing more, and stop. A router that cannot be reached is not waited for."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        request = router_pb2.DrainRequest(instance_id=self._instance.id, deregister=True, reason="shutdown")
        with contextlib.suppress(Fault):
            await self._peer.call("Drain", request, self._call())
        await self._peer.close()

    async def _run(self) -> None:
        while True:
            await self._register()
            while not await self._beat():
                await self._clock.sleep(self._interval_s)

    async def _register(self) -> None:
        delay_s, failed = RETRY_S[0], False
        while True:
            try:
                answer = await self._peer.call(
                    "Register", router_pb2.RegisterRequest(instance=self._instance), self._call()
                )
            except Fault as fault:
                if not failed:
                    log.warning("not registered with the router yet: %s", fault.message)
                failed = True
                await self._clock.sleep(delay_s)
                delay_s = min(RETRY_S[1], delay_s * 2)
            else:
                self._interval_s = answer.heartbeat_interval_ms / 1000.0
                log.info("registered with the router as %s", self._instance.id)
                return

    async def _beat(self) -> bool:
        """Send a heartbeat; True when the router wants a new registration."""
        request = router_pb2.HeartbeatRequest(instance_id=self._instance.id, load=self._load())
        try:
            answer: router_pb2.HeartbeatResponse = await self._peer.call("Heartbeat", request, self._call())
        except Fault as fault:
            log.debug("heartbeat failed: %s", fault.message)
            return False
        return answer.register_again

    def _call(self) -> Call:
        return Call(deadline_s=self._clock.monotonic() + 2.0)
