"""A raw HTTP/2 client that sends a gRPC server what no gRPC library sends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions

READ_BYTES = 1 << 16
Headers = Sequence[tuple[str, str]]


class RawHttp2:
    """One connection. Frames leave with `flush`; `events` gives what the server has sent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self.connection = h2.connection.H2Connection(config)
        self.connection.initiate_connection()

    def begin(self, path: str, headers: Headers = ()) -> int:
        """Send the headers of a gRPC call; returns its stream's id."""
        stream = self.connection.get_next_available_stream_id()
        self.connection.send_headers(
            stream,
            [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", path),
                (":authority", "localhost"),
                ("content-type", "application/grpc"),
                ("te", "trailers"),
                *headers,
            ],
        )
        return stream

    async def flush(self) -> None:
        """Send what is to be sent."""
        self._writer.write(self.connection.data_to_send())
        await self._writer.drain()

    async def events(self) -> list[Any]:
        """The next events; empty once the server has closed the connection."""
        data = await self._reader.read(READ_BYTES)
        if not data:
            return []
        received = list(self.connection.receive_data(data))
        with contextlib.suppress(OSError):
            await self.flush()
        return received

    async def headers_of(self, stream: int) -> dict[str, str]:
        """All headers and trailers of a stream, when it has ended.

        Raises:
            ConnectionError: the connection has ended before.
        """
        found: dict[str, str] = {}
        while True:
            events = await self.events()
            if not events and self._reader.at_eof():
                raise ConnectionError("the server has closed the connection")
            for event in events:
                if getattr(event, "stream_id", None) != stream:
                    continue
                if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                    found.update(dict(event.headers or ()))
                if isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                    return found


@contextlib.asynccontextmanager
async def raw_http2(address: str) -> AsyncIterator[RawHttp2]:
    """A connection to `host:port`, closed with the block."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    client = RawHttp2(reader, writer)
    await client.flush()
    try:
        yield client
    finally:
        writer.transport.abort()
