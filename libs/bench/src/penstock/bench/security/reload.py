"""Certificates that are replaced under load: calls that fail because of it."""

from __future__ import annotations

import asyncio
import datetime
import tempfile
from dataclasses import dataclass
from pathlib import Path

from penstock.bench.hop.benchmark import REQUEST
from penstock.cli.dev_authority import HERE, Authority
from penstock.hosting.grpc_server import GrpcServer
from penstock.rpc.auth import services_only
from penstock.rpc.call import Call
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.errors import Fault
from penstock.rpc.peers.stream import Peer, connect, open_channel
from penstock.rpc.peers.unary import UnaryPeer
from penstock.service.service_tokens import SharedToken
from penstock.service.settings import ServiceSettings
from penstock.service.tls_files import TlsFiles, TlsSource
from penstock.testkit.instance import INFERENCE, SleepingInstance

CALLERS = 16
NOBODY = SharedToken("")
PAUSE_S = 0.1
"""Seconds between two replacements."""


@dataclass
class Reloads:
    """What was counted."""

    calls: int = 0
    errors: int = 0
    replaced: int = 0
    connections: int = 0


async def measure(seconds: float) -> Reloads:
    """Call over mutual TLS, on streams, on plain calls and on new connections, while the
    certificates of server and client are replaced again and again.
    """
    with tempfile.TemporaryDirectory(prefix="penstock-reload-") as folder:
        return await _Rig(Path(folder)).run(seconds)


class _Rig:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = Authority.new(datetime.datetime.now(datetime.UTC))
        self._counted = Reloads()
        self._issue()
        self._source = TlsSource(TlsFiles.of_folder(folder / "batcher"))
        self._server = GrpcServer(
            "reloading",
            ServiceSettings(listen="127.0.0.1:0", tls_dir=folder / "inference"),
            [Endpoint(INFERENCE, SleepingInstance(0.001), services_only(INFERENCE, NOBODY))],
        )

    def _issue(self) -> None:
        now = datetime.datetime.now(datetime.UTC)
        for name in ("inference", "batcher"):
            self._authority.issue(self._folder / name, (name, *HERE), now)

    async def run(self, seconds: float) -> Reloads:
        await self._server.start()
        end_s = asyncio.get_running_loop().time() + seconds
        address = self._server.address
        channel = open_channel(address, self._source, "inference")
        peers = (
            connect(address, INFERENCE, tls=self._source, expected_name="inference"),
            UnaryPeer(channel, INFERENCE),
        )
        try:
            await asyncio.gather(
                self._replace(end_s),
                self._reconnect(end_s),
                *(self._call(peers[number % 2], end_s) for number in range(CALLERS)),
            )
        finally:
            for peer in peers:
                await peer.close()
            await self._server.stop(None)
        return self._counted

    async def _replace(self, end_s: float) -> None:
        while asyncio.get_running_loop().time() < end_s:
            self._issue()
            self._counted.replaced += 1
            await asyncio.sleep(PAUSE_S)

    async def _reconnect(self, end_s: float) -> None:
        while asyncio.get_running_loop().time() < end_s:
            address = self._server.address
            peer = connect(address, INFERENCE, tls=self._source, expected_name="inference")
            await self._once(peer)
            await peer.close()
            self._counted.connections += 1

    async def _call(self, peer: Peer, end_s: float) -> None:
        while asyncio.get_running_loop().time() < end_s:
            await self._once(peer)

    async def _once(self, peer: Peer) -> None:
        self._counted.calls += 1
        try:
            await peer.call("Compute", REQUEST, Call())
        except Fault:
            self._counted.errors += 1
