"""Which services this process serves, and how those call each other: without a wire."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from google.protobuf.descriptor import ServiceDescriptor
from penstock.hosting.outside import Dial, DialPlainly, Outside, PlainPeer, token_for
from penstock.hosting.probe import reachable_by
from penstock.hosting.service import Service
from penstock.rpc.peers.in_process import InProcessPeer, LocalEndpoint
from penstock.rpc.peers.stream import Peer
from penstock.service.settings import ServiceSettings


class LocalServices:
    """The endpoints of this process by address and name.

    Args:
        settings: of every service that the process will serve: who dials one of their addresses
            calls in process, also before that service is there.
    """

    def __init__(self, settings: Iterable[ServiceSettings]) -> None:
        self._addresses = {address for each in settings for address in _addresses(each)}
        self._endpoints: dict[tuple[str, str], LocalEndpoint] = {}

    def add(self, service: Service, settings: ServiceSettings, outside: Outside) -> LocalPort:
        """Let others call what the service's own port serves, while the returned port is open."""
        local = [
            LocalEndpoint(endpoint, outside.telemetry, outside.clock)
            for endpoint in service.endpoints
        ]
        for address in _addresses(settings):
            for each in local:
                self._endpoints[address, each.endpoint.service.full_name] = each
        return LocalPort(service.name, local)

    def dialling(self, name: str, settings: ServiceSettings, outside: Outside) -> Dial:
        """How one service of this process dials: the others in process, all else as `outside`
        does.
        """

        def dial(address: str, service: ServiceDescriptor) -> Peer:
            if _canonical(address) not in self._addresses:
                return outside.dial(address, service)
            return InProcessPeer(
                service,
                self._finder(_canonical(address), service.full_name),
                token=token_for(name, settings, address, service),
                caller=name,
                clock=outside.clock,
                tracer=outside.telemetry,
            )

        return dial

    def dialling_plainly(
        self, name: str, settings: ServiceSettings, outside: Outside
    ) -> DialPlainly:
        """The same for connections on which each call presents its own key."""

        def dial(address: str, service: ServiceDescriptor) -> PlainPeer:
            if _canonical(address) not in self._addresses:
                return outside.dial_plainly(address, service)
            return InProcessPeer(
                service,
                self._finder(_canonical(address), service.full_name),
                token=token_for(name, settings, address, service),
                caller=name,
                clock=outside.clock,
                tracer=outside.telemetry,
            )

        return dial

    def _finder(self, address: str, name: str) -> Callable[[], LocalEndpoint | None]:
        return lambda: self._endpoints.get((address, name))


class LocalPort:
    """Where callers of the same process reach a service; a Port like those on the wire."""

    def __init__(self, name: str, endpoints: Iterable[LocalEndpoint]) -> None:
        self.address = f"in-process:{name}"
        self._endpoints = tuple(endpoints)

    async def start(self) -> None:
        """Take calls."""
        for endpoint in self._endpoints:
            endpoint.open()

    async def stop(self, grace_s: float | None = None, hurry: asyncio.Event | None = None) -> None:
        """Refuse calls and end those in flight. Whoever stops a process stops callers first, so
        there is no grace.
        """
        await asyncio.gather(*(endpoint.close() for endpoint in self._endpoints))


def _addresses(settings: ServiceSettings) -> set[str]:
    """Where a service is reached; a port that is chosen when it is bound can be named by nobody."""
    given = {settings.listen, settings.advertise, settings.cell_address} - {""}
    return {_canonical(address) for address in given if not address.endswith(":0")}


def _canonical(address: str) -> str:
    """One name for the addresses of this machine's own ports."""
    address = reachable_by(address)
    for name in ("localhost:", "[::1]:"):
        if address.startswith(name):
            return f"127.0.0.1:{address.removeprefix(name)}"
    return address
