"""A gRPC port: endpoints and foreign protocols on an address, with health, reflection,
limits and a clean end.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from penstock.hosting import reflection
from penstock.hosting.unix_socket import free_path
from penstock.rpc.credentials import server_credentials
from penstock.rpc.dispatch import MAX_MESSAGE_BYTES
from penstock.rpc.endpoint import Endpoint, EndpointHandlers
from penstock.rpc.frame_connection import LOOPBACK
from penstock.rpc.frame_port import FramePort
from penstock.rpc.spans import NO_TRACER, Tracer
from penstock.service.clock import Clock, SystemClock
from penstock.service.program import CannotStart
from penstock.service.settings import ServiceSettings

NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVING = health_pb2.HealthCheckResponse.SERVING
EVENT_LOOP = "penstock.event-loop"
"""What health calls the event loop: NOT_SERVING while it stalls, see `penstock.hosting.event_loop`.
"""


LOCAL_HOSTS = (*LOOPBACK, "0.0.0.0", "[::]")
"""Hosts of an address at which callers of this machine reach a port by loopback."""
UNLIMITED_MS = (1 << 31) - 1
"""What gRPC takes for no limit."""
LAST_CALLS_MS = 3_600_000
"""Time that calls get to end on a connection that takes no new ones. Item streams go over to the
next connection by themselves, within their own age.
"""


@dataclass(frozen=True)
class ServerLimits:
    """Bounds of one server. `default_deadline_s` is given to calls that set none."""

    max_message_bytes: int = MAX_MESSAGE_BYTES
    max_metadata_bytes: int = 16 << 10
    max_streams: int = 1000
    """Calls of one connection."""
    max_calls: int = 20_000
    """Calls of all connections, item streams and refused calls included; items are not counted."""
    default_deadline_s: float = 30.0

    def options(self, *, shared_port: bool, connection_age_s: float) -> list[tuple[str, int]]:
        """As gRPC channel arguments.

        Args:
            connection_age_s: after this, give or take a tenth, a connection takes no new calls and
                its client opens another; 0: never.
            shared_port: whether several processes listen on the port (SO_REUSEPORT), to each of
                which the kernel gives a share of the connections; else a second one fails instead
                of taking half of the traffic unnoticed.
        """
        age_ms = round(connection_age_s * 1e3) or UNLIMITED_MS
        return [
            ("grpc.max_connection_age_ms", age_ms),
            ("grpc.max_connection_age_grace_ms", LAST_CALLS_MS),
            ("grpc.so_reuseport", int(shared_port)),
            ("grpc.max_receive_message_length", self.max_message_bytes),
            ("grpc.max_send_message_length", 64 << 20),
            ("grpc.max_metadata_size", self.max_metadata_bytes // 2),
            ("grpc.absolute_max_metadata_size", self.max_metadata_bytes),
            ("grpc.max_concurrent_streams", self.max_streams),
            ("grpc.http2.bdp_probe", 0),
            ("grpc.http2.min_ping_interval_without_data_ms", 30_000),
            ("grpc.keepalive_permit_without_calls", 1),
        ]


class GrpcServer:
    """A gRPC port. Owner: whoever started it must `stop` it.

    Without `serving_from_start` its health says NOT_SERVING until `set_serving`. Where the settings
    name a certificate, it speaks TLS only.

    Args:
        demands_certificate: whether a caller over TLS needs a certificate of the authorities;
            None: yes, unless an endpoint is public.
    """

    def __init__(
        self,
        name: str,
        settings: ServiceSettings,
        endpoints: Sequence[Endpoint],
        *,
        foreign: Sequence[Callable[[grpc.aio.Server], None]] = (),
        foreign_names: Sequence[str] = (),
        tracer: Tracer = NO_TRACER,
        clock: Clock | None = None,
        limits: ServerLimits | None = None,
        serving_from_start: bool = True,
        demands_certificate: bool | None = None,
    ) -> None:
        self.name = name
        self._settings = settings
        self._clock = clock or SystemClock()
        limits = limits or ServerLimits()
        age_s = settings.connection_age_s
        options = limits.options(shared_port=bool(settings.cell), connection_age_s=age_s)
        self.grpc_server = grpc.aio.server(
            options=options, maximum_concurrent_rpcs=limits.max_calls
        )
        self._handlers = [
            EndpointHandlers(endpoint, tracer, self._clock, limits.default_deadline_s, age_s)
            for endpoint in endpoints
        ]
        self.grpc_server.add_generic_rpc_handlers([each.generic() for each in self._handlers])
        for add in foreign:
            add(self.grpc_server)
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.grpc_server)
        self._serving_from_start = serving_from_start
        self._names = [endpoint.service.full_name for endpoint in endpoints] + list(foreign_names)
        if settings.profile == "development":
            reflection.enable([*self._names, health.SERVICE_NAME], self.grpc_server)
        if demands_certificate is None:
            demands_certificate = not any(endpoint.public for endpoint in endpoints)
        self._demands_certificate = demands_certificate
        self._frames: FramePort | None = None
        self.address = settings.listen
        self.port = 0

    async def start(self) -> int:
        """Bind and serve; returns the TCP port, 0 for a unix socket.

        Raises:
            CannotStart: the address is in use, is not one of this machine, or names a file that is
                no socket.
        """
        address = self._settings.listen
        if address.startswith("unix:"):
            if self._settings.cell:
                raise CannotStart(f"{address}: several cells cannot share a unix socket")
            free_path(Path(address.removeprefix("unix:")))
        try:
            port = self._add_port(address)
        except RuntimeError:
            port = 0
        if port == 0:
            raise CannotStart(
                f"cannot listen on {address}: it is in use, or not an address of this "
                "machine; set PENSTOCK_LISTEN"
            )
        if not address.startswith("unix:"):
            self.port = port
            self.address = f"{address.rpartition(':')[0]}:{port}"
        await self.set_serving(self._serving_from_start)
        await self.set_stalling(False)
        await self.grpc_server.start()
        await self._listen_for_frames()
        return self.port

    async def _listen_for_frames(self) -> None:
        """Take item streams of this machine's services over a socket beside the port, unless others
        share the port, nobody of this machine reaches it, or TLS is demanded.
        """
        address = self.address
        if address.rpartition(":")[0] in LOCAL_HOSTS:
            address = f"{LOOPBACK[0]}:{self.port}"
        if self._settings.tls is not None or self._settings.cell:
            return
        services = {each.name: each.exchange for each in self._handlers if each.has_local_streams}
        self._frames = FramePort(address, services)
        await self._frames.start()

    def _add_port(self, address: str) -> int:
        """Bind; returns the port, 0 or RuntimeError for none."""
        tls = self._settings.tls
        if tls is None:
            return int(self.grpc_server.add_insecure_port(address))
        credentials = server_credentials(tls, demands_certificate=self._demands_certificate)
        return int(self.grpc_server.add_secure_port(address, credentials))

    async def set_serving(self, serving: bool) -> None:
        """Tell health checkers whether to send work here."""
        for name in ["", *self._names]:
            await self._health.set(name, SERVING if serving else NOT_SERVING)

    async def set_stalling(self, stalling: bool) -> None:
        """Tell health checkers, as a detail, whether the event loop is stalling."""
        await self._health.set(EVENT_LOOP, NOT_SERVING if stalling else SERVING)

    async def stop(self, grace_s: float | None = None, hurry: asyncio.Event | None = None) -> None:
        """Say NOT_SERVING, let callers notice, refuse new calls, give those in flight `grace_s`
        seconds or until `hurry` is set, end.
        """
        hurry = hurry or asyncio.Event()
        await self._health.enter_graceful_shutdown()
        if grace_s:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(hurry.wait(), self._settings.drain_s)
        for handlers in self._handlers:
            handlers.drain()
        hurried = asyncio.create_task(hurry.wait())
        stopping = asyncio.ensure_future(self._stop_streams(grace_s))
        await asyncio.wait([hurried, stopping], return_when=asyncio.FIRST_COMPLETED)
        if not stopping.done():
            await self._stop_streams(0)
            await stopping
        hurried.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await hurried

    async def _stop_streams(self, grace_s: float | None) -> None:
        """Refuse new calls and streams, give those in flight `grace_s` seconds, end them."""
        frames = self._frames.stop(grace_s) if self._frames is not None else asyncio.sleep(0)
        await asyncio.gather(self.grpc_server.stop(grace_s), frames)
