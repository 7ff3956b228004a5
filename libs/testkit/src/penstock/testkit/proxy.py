"""A TCP proxy that can stall and cut its connections, as a network and a crash do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

CHUNK_BYTES = 65_536


class TcpProxy:
    """Relays TCP connections to `target` (host:port). Callers connect to `address`."""

    def __init__(self, target: str) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._transports: list[asyncio.WriteTransport] = []
        self._relays: set[asyncio.Task[None]] = set()
        self.stalled = asyncio.Event()
        """Set once a stall has held back data."""
        self.address = ""

    async def serve(self) -> asyncio.Server:
        """Begin to listen on a free port; the caller closes the returned server."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return server

    def stall(self) -> None:
        """Hold back all data from now on, until `cut`."""
        self._flowing.clear()

    def cut(self) -> None:
        """Reset every connection, as a killed process does; data held back is lost."""
        transports = self._transports
        self._transports = []
        for transport in transports:
            transport.abort()
        for relay in self._relays:
            relay.cancel()
        self.stalled.clear()
        self._flowing.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target_reader, target_writer = await asyncio.open_connection(self._host, self._port)
        self._transports += [writer.transport, target_writer.transport]
        for source, sink in ((reader, target_writer), (target_reader, writer)):
            relay = asyncio.create_task(self._relay(source, sink))
            self._relays.add(relay)
            relay.add_done_callback(self._relays.discard)

    async def _relay(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await source.read(CHUNK_BYTES):
                if not self._flowing.is_set():
                    self.stalled.set()
                await self._flowing.wait()
                sink.write(chunk)
                await sink.drain()
        sink.close()


@contextlib.asynccontextmanager
async def tcp_proxy(target: str) -> AsyncIterator[TcpProxy]:
    """A proxy to `target` (host:port); its connections are cut at the end."""
    proxy = TcpProxy(target)
    server = await proxy.serve()
    try:
        yield proxy
    finally:
        proxy.cut()
        server.close()
        await server.wait_closed()
