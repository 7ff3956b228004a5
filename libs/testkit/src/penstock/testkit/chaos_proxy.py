"""A TCP proxy that makes a connection as bad as a network can: the faults that Shopify's toxiproxy
calls toxics, each a value.

A chunk that was read from one side passes the toxics in order on its way to the other.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

CHUNK_BYTES = 65_536
Direction = Literal["to_target", "to_caller"]


@dataclass(frozen=True)
class Latency:
    """Each chunk comes later by so much, give or take the jitter."""

    seconds: float
    jitter_s: float = 0.0


@dataclass(frozen=True)
class Bandwidth:
    """Bytes a second at most."""

    bytes_per_s: float


@dataclass(frozen=True)
class Slicer:
    """Chunks are cut into pieces of so many bytes on average."""

    average_bytes: int


@dataclass(frozen=True)
class LimitData:
    """After so many bytes the connection is closed."""

    max_bytes: int


@dataclass(frozen=True)
class ResetPeer:
    """Both sides are reset with the first chunk."""


@dataclass(frozen=True)
class Blackhole:
    """Nothing arrives, and the connection stays open."""


@dataclass(frozen=True)
class SlowClose:
    """The end of the data is passed on so much later."""

    seconds: float


Toxic = Latency | Bandwidth | Slicer | LimitData | ResetPeer | Blackhole | SlowClose


class ChaosProxy:
    """Relays TCP connections to `target` (host:port). Callers connect to `address`.

    `toxics` may be changed while it runs; connections that are open feel it with their next chunk.
    """

    def __init__(self, target: str, rng: Random) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._rng = rng
        self._relays: set[asyncio.Task[None]] = set()
        self.toxics: Sequence[Toxic] = ()
        self.direction: Direction = "to_caller"
        """The way that is poisoned; the other is clean."""
        self.address = ""

    async def serve(self) -> asyncio.Server:
        """Begin to listen on a free port; the caller closes the returned server."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return server

    async def close(self) -> None:
        """End every connection."""
        for relay in self._relays:
            relay.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target_reader, target_writer = await asyncio.open_connection(self._host, self._port)
        pairs: tuple[
            tuple[Direction, asyncio.StreamReader, asyncio.StreamWriter, asyncio.StreamWriter], ...
        ] = (
            ("to_target", reader, target_writer, writer),
            ("to_caller", target_reader, writer, target_writer),
        )
        for direction, source, sink, back in pairs:
            relay = asyncio.create_task(self._relay(direction, source, sink, back))
            self._relays.add(relay)
            relay.add_done_callback(self._relays.discard)

    async def _relay(
        self,
        direction: Direction,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        back: asyncio.StreamWriter,
    ) -> None:
        passed = 0
        try:
            with contextlib.suppress(OSError):
                while chunk := await source.read(CHUNK_BYTES):
                    toxics = self.toxics if direction == self.direction else ()
                    for toxic in toxics:
                        match toxic:
                            case ResetPeer():
                                sink.transport.abort()
                                back.transport.abort()
                                return
                            case LimitData(max_bytes):
                                chunk = chunk[: max(max_bytes - passed, 0)]
                                if not chunk:
                                    return
                    passed += len(chunk)
                    await self._pass_on(chunk, toxics, sink)
                for toxic in self.toxics:
                    if isinstance(toxic, SlowClose):
                        await asyncio.sleep(toxic.seconds)
        finally:
            sink.close()

    async def _pass_on(
        self, chunk: bytes, toxics: Sequence[Toxic], sink: asyncio.StreamWriter
    ) -> None:
        """Write a chunk as late, as slowly, and in as many pieces as the toxics say."""
        pieces = [chunk]
        for toxic in toxics:
            match toxic:
                case Latency(seconds, jitter_s):
                    late_s = seconds + self._rng.uniform(-jitter_s, jitter_s)
                    await asyncio.sleep(max(late_s, 0.0))
                case Bandwidth(bytes_per_s):
                    await asyncio.sleep(len(chunk) / bytes_per_s)
                case Slicer(average_bytes):
                    pieces = self._sliced(chunk, average_bytes)
                case Blackhole():
                    await asyncio.Event().wait()
        for piece in pieces:
            sink.write(piece)
            await sink.drain()

    def _sliced(self, chunk: bytes, average_bytes: int) -> list[bytes]:
        pieces = []
        while chunk:
            size = self._rng.randint(1, 2 * average_bytes)
            pieces.append(chunk[:size])
            chunk = chunk[size:]
        return pieces


@contextlib.asynccontextmanager
async def chaos_proxy(target: str, seed: int = 1) -> AsyncIterator[ChaosProxy]:
    """A proxy to `target` (host:port); its connections end with the block."""
    proxy = ChaosProxy(target, Random(seed))
    server = await proxy.serve()
    try:
        yield proxy
    finally:
        await proxy.close()
        server.close()
        await server.wait_closed()
