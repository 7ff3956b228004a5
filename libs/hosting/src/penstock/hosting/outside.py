"""What a service is given of the world: time, chance, telemetry, connections, stores.

`build(settings, outside)` of every service takes nothing else from outside, so tests, the cell and
benchmarks assemble the service that production runs, in a world of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import ServiceDescriptor
from penstock.otel.exporters import Exporters
from penstock.otel.telemetry import Telemetry
from penstock.rpc.auth import audience_of, proof
from penstock.rpc.callers import SERVED_BY
from penstock.rpc.dispatch import EXCHANGE
from penstock.rpc.peers.in_process import InProcessPeer
from penstock.rpc.peers.merged import MergedPeer
from penstock.rpc.peers.stream import Peer, connect, open_channel
from penstock.rpc.peers.unary import UnaryPeer
from penstock.service.clock import Clock, SystemClock
from penstock.service.settings import ServiceSettings

if TYPE_CHECKING:
    import redis.asyncio

Dial = Callable[[str, ServiceDescriptor], Peer]
"""Gives a peer for an address and a service; it connects with its first call. Who dials closes."""
PlainPeer = InProcessPeer | UnaryPeer
"""A peer whose calls can carry metadata of their own, such as each caller's key."""
DialPlainly = Callable[[str, ServiceDescriptor], PlainPeer]
"""As Dial, for services that authenticate each call: an item stream belongs to one caller."""
OpenStore = Callable[..., "redis.asyncio.Redis"]
"""Gives a client for a store's URL; see `penstock.service.store.open_store`."""


def open_store(url: str, **options: Any) -> redis.asyncio.Redis:
    """See `penstock.service.store.open_store`, whose library only services with a store load."""
    from penstock.service.store import open_store as open_by_redis

    return open_by_redis(url, **options)


def no_plain_peer(address: str, service: ServiceDescriptor) -> PlainPeer:
    """A world without plain connections."""
    raise NotImplementedError(f"nothing dials {address} plainly here")


@dataclass(frozen=True)
class Outside:
    """The outside world of one service."""

    telemetry: Telemetry
    dial: Dial
    clock: Clock = field(default_factory=SystemClock)
    open_store: OpenStore = open_store
    rng: Random = field(default_factory=Random)
    dial_plainly: DialPlainly = no_plain_peer


def dial_all(dial: Dial, addresses: str, service: ServiceDescriptor) -> Peer:
    """One peer for a service, or for all services of a kind at addresses with commas between."""
    peers = [dial(address.strip(), service) for address in addresses.split(",")]
    return peers[0] if len(peers) == 1 else MergedPeer(peers)


def dialling(name: str, settings: ServiceSettings, clock: Clock, telemetry: Telemetry) -> Dial:
    """Connections of a service, with its certificate, which also names who is called, or a proof
    that it holds its secret: an item stream where the callee has one.
    """

    def dial(address: str, service: ServiceDescriptor) -> Peer:
        expected = SERVED_BY.get(service.full_name, "")
        token, tls = token_for(name, settings, address, service), settings.tls
        if EXCHANGE in service.methods_by_name:
            return connect(
                address,
                service,
                token=token,
                clock=clock,
                tracer=telemetry,
                tls=tls,
                expected_name=expected,
                divides=True,
            )
        channel = open_channel(address, tls, expected)
        return UnaryPeer(channel, service, token=token, clock=clock, tracer=telemetry, divides=True)

    return dial


def token_for(
    name: str, settings: ServiceSettings, address: str, service: ServiceDescriptor
) -> str:
    """What a service proves itself with to a callee; empty where a certificate does."""
    secret = settings.tokens.sent_to(SERVED_BY.get(service.full_name, service.full_name))
    if not secret or settings.tls is not None:
        return ""
    return proof(secret, name, audience_of(service.full_name, address))


def dialling_plainly(
    name: str, settings: ServiceSettings, clock: Clock, telemetry: Telemetry
) -> DialPlainly:
    """Connections on which each call presents its own key, beside what proves which service of ours
    calls.
    """

    def dial(address: str, service: ServiceDescriptor) -> UnaryPeer:
        channel = open_channel(address, settings.tls)
        token = token_for(name, settings, address, service)
        return UnaryPeer(channel, service, token=token, clock=clock, tracer=telemetry, divides=True)

    return dial


@contextlib.asynccontextmanager
async def real_world(
    service: str, settings: ServiceSettings, *, edge: bool = False
) -> AsyncIterator[Outside]:
    """The real world for the length of a service's life; telemetry is flushed at the end.

    Args:
        service: `service.name` of what is recorded.
        edge: True for a service with a public port, see Telemetry.
    """
    telemetry = telemetry_of(service, settings, edge=edge)
    clock = SystemClock()
    try:
        yield Outside(
            telemetry,
            dialling(service, settings, clock, telemetry),
            clock,
            dial_plainly=dialling_plainly(service, settings, clock, telemetry),
        )
    finally:
        await asyncio.to_thread(telemetry.close)


def telemetry_of(
    service: str,
    settings: ServiceSettings,
    *,
    edge: bool = False,
    process: str | None = "",
    exporters: Exporters | None = None,
) -> Telemetry:
    """The telemetry of a service, as its settings say. Owner: the caller, who closes it.

    `edge`, `process` and `exporters`: see Telemetry.
    """
    address = settings.advertise or settings.listen
    named = f"{address}/{settings.cell}" if settings.cell else address
    instance = getattr(settings, "instance_id", "") or named
    return Telemetry(
        service,
        settings.otlp_endpoint,
        profile=settings.profile,
        edge=edge,
        instance=instance,
        process=process,
        interval_s=1.0,
        tls=settings.tls,
        exporters=exporters,
    )
