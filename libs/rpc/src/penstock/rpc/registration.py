"""How an instance becomes known: it registers with a router, renews its lease with its load, and
deregisters before it stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.message import Message
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault
from penstock.rpc.peers.stream import Peer, open_channel
from penstock.rpc.peers.unary import UnaryPeer
from penstock.service.clock import Clock, SystemClock, next_tick
from penstock.service.purity import pure

log = logging.getLogger(__name__)

SERVICE = router_pb2.DESCRIPTOR.services_by_name["RegistryService"]
RPC_TIMEOUT_S = 2.0
HEARTBEAT_TIMEOUT_S = 1.0
"""Of a heartbeat: a lost one leaves time to register again before the lease ends."""
MIN_RETRY_S = 0.1
MAX_RETRY_S = 2.0
SECRET_BYTES = 32
"""Of the secret that a process registers with; see RegisterRequest."""


class Registrar:
    """Keeps one instance registered.

    Owner: whoever calls `start` must await `leave` before the instance stops serving.

    Args:
        router_addresses: `host:port` or `unix:/path`; several, separated by commas, are tried in
            turn. Routers that share a store tell each other, so one that answers is enough.
        instance: what is registered.
        token: the internal token.
        load: the load now, sent with each heartbeat; None sends none.
        dial: connects to the registry; None: by plaintext and the token.
        models: the models now, sent with the first heartbeat after they have changed; None where
            they never do.
    """

    def __init__(
        self,
        router_addresses: str,
        instance: router_pb2.Instance,
        token: str,
        load: Callable[[], common_pb2.LoadReport] | None = None,
        clock: Clock | None = None,
        models: Callable[[], Sequence[inference_pb2.Model]] | None = None,
        dial: Callable[[str], Peer] | None = None,
    ) -> None:
        self._addresses = [part.strip() for part in router_addresses.split(",") if part.strip()]
        self._instance = instance
        self._token = token
        self._dial = dial or self._dial_plainly
        self._load = load
        self._models = models
        self._clock = clock or SystemClock()
        self._secret = secrets.token_bytes(SECRET_BYTES)
        self._turn = 0
        self._peer: Peer | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Register in the background, and go on trying for as long as no router answers."""
        self._task = asyncio.get_running_loop().create_task(
            self._keep(), name=f"register {self._instance.id}"
        )

    async def leave(self) -> None:
        """Have the router send nothing more and forget the lease; a router that does not answer is
        not waited for.
        """
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._peer is not None:
            with contextlib.suppress(Fault):
                request = router_pb2.DrainRequest(
                    instance_id=self._instance.id,
                    deregister=True,
                    registration_secret=self._secret,
                )
                await self._call("Drain", request)
        await self._hang_up()

    async def _keep(self) -> None:
        failures = 0
        while True:
            try:
                request = router_pb2.RegisterRequest(
                    instance=self._instance, registration_secret=self._secret
                )
                lease = await self._call("Register", request)
                failures = 0
                await self._renew(lease.heartbeat_interval_ms / 1000.0)
            except Fault as fault:
                failures += 1
                if failures in (4, 40):
                    log.warning("not registered with a router: %s", fault.message)
                await self._hang_up()
                self._turn += 1
                await self._clock.sleep(_pause_s(failures, fault.retry_after_s))

    async def _renew(self, interval_s: float) -> None:
        """Send heartbeats until the router asks to register again."""
        while True:
            await next_tick(self._clock, interval_s)
            request = router_pb2.HeartbeatRequest(
                instance_id=self._instance.id,
                load=self._load() if self._load else None,
                models=self._changed_models(),
                registration_secret=self._secret,
            )
            answer = await self._call("Heartbeat", request, HEARTBEAT_TIMEOUT_S)
            if answer.register_again:
                return

    def _changed_models(self) -> Sequence[inference_pb2.Model]:
        """The models, where they differ from those of the last time; empty where they do not. A
        registration that follows has them too.
        """
        models = list(self._models()) if self._models is not None else []
        if not models or models == list(self._instance.models):
            return ()
        del self._instance.models[:]
        self._instance.models.extend(models)
        return models

    async def _call(self, method: str, request: Message, timeout_s: float = RPC_TIMEOUT_S) -> Any:
        if self._peer is None:
            self._peer = self._dial(self._addresses[self._turn % len(self._addresses)])
        return await self._peer.call(
            method, request, Call(deadline_s=self._clock.monotonic() + timeout_s)
        )

    def _dial_plainly(self, address: str) -> Peer:
        return UnaryPeer(open_channel(address), SERVICE, token=self._token, clock=self._clock)

    async def _hang_up(self) -> None:
        if self._peer is not None:
            peer, self._peer = self._peer, None
            await peer.close()


@pure
def _pause_s(failures: int, retry_after_s: float) -> float:
    """Seconds before the next try: doubling, but not beyond what the router says."""
    pause_s = min(MAX_RETRY_S, MIN_RETRY_S * 2.0 ** min(failures, 8))
    return min(pause_s, retry_after_s) if retry_after_s else pause_s
