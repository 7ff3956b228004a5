"""A wire between a caller and a server that can be stalled and cut, as a network and a crash do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class TcpProxy:
    """Relays TCP connections to `target`. `address` is where callers connect."""

    def __init__(self, target: str) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._flows = asyncio.Event()
        self._flows.set()
        self._ends: list[asyncio.WriteTransport] = []
        self._relays: set[asyncio.Task[None]] = set()
        self.stalled = asyncio.Event()
        """Set once something has been held back."""
        self.address = ""

    async def serve(self) -> asyncio.Server:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return server

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(self._host, self._port)
        self._ends += [writer.transport, far_writer.transport]
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            relay = asyncio.create_task(self._relay(source, sink))
            self._relays.add(relay)
            relay.add_done_callback(self._relays.discard)

    async def _relay(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await source.read(65_536):
                if not self._flows.is_set():
                    self.stalled.set()
                await self._flows.wait()
                sink.write(piece)
                await sink.drain()
        sink.close()

    def stall(self) -> None:
        """Hold everything back from now on, until `cut`."""
        self._flows.clear()

    def cut(self) -> None:
        """Break every connection at once, as a killed process does; what was held back is lost."""
        ends, self._ends = self._ends, []
        for end in ends:
            end.abort()
        for relay in self._relays:
            relay.cancel()
        self.stalled.clear()
        self._flows.set()


@contextlib.asynccontextmanager
async def tcp_proxy(target: str) -> AsyncIterator[TcpProxy]:
    """A wire to `target` (host:port), cut afterwards."""
    proxy = TcpProxy(target)
    server = await proxy.serve()
    try:
        yield proxy
    finally:
        proxy.cut()
        server.close()
        await server.wait_closed()
