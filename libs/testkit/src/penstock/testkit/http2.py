"""An HTTP/2 server over TLS that gives every chat completion the same answer.

It shows what HTTP/1.1 cannot: many calls at a time on one connection, and the end of one stream
that leaves the others alone. The protocol is hyper's h2, the sockets are asyncio's.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.events

READ_BYTES = 1 << 16
ANSWER = {
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "over two"},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2},
}


@dataclass
class Http2Upstream:
    """The server, an async context manager.

    Attributes:
        tls: a server's TLS context; it is changed to offer h2 alone.
        min_concurrent: answers are held back until so many calls are in flight.
        connections: number of connections accepted so far.
        protocols: what each connection agreed on by ALPN.
        resets: ids of streams that callers have reset.
        requests: the request bodies so far.
        url: the base URL, while it serves.
    """

    tls: ssl.SSLContext
    min_concurrent: int = 1
    connections: int = 0
    protocols: list[str | None] = field(default_factory=list)
    resets: asyncio.Queue[int] = field(default_factory=asyncio.Queue)
    requests: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def __aenter__(self) -> Http2Upstream:
        self.tls.set_alpn_protocols(["h2"])
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls)
        self.url = f"https://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.protocols.append(writer.get_extra_info("ssl_object").selected_alpn_protocol())
        self._writers.add(writer)
        connection = _Connection(self)
        try:
            writer.write(connection.open())
            while data := await reader.read(READ_BYTES):
                writer.write(connection.receive(data))
                await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            return
        finally:
            self._writers.discard(writer)
            writer.close()


class _Connection:
    """The HTTP/2 state of one connection: bytes in, bytes out."""

    def __init__(self, upstream: Http2Upstream) -> None:
        self._upstream = upstream
        self._h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        )
        self._bodies: dict[int, bytes] = {}
        self._unanswered: list[int] = []

    def open(self) -> bytes:
        """The first bytes to send."""
        self._h2.initiate_connection()
        return self._h2.data_to_send()

    def receive(self, data: bytes) -> bytes:
        """Take received bytes; return the bytes to send."""
        for event in self._h2.receive_data(data):
            self._handle(event)
        if len(self._unanswered) >= self._upstream.min_concurrent:
            for stream in self._unanswered:
                self._answer(stream)
            self._unanswered.clear()
        return self._h2.data_to_send()

    def _handle(self, event: object) -> None:
        match event:
            case h2.events.DataReceived():
                body = self._bodies.get(event.stream_id, b"")
                self._bodies[event.stream_id] = body + event.data
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamEnded():
                body = self._bodies.pop(event.stream_id, b"{}")
                self._upstream.requests.append(json.loads(body))
                self._unanswered.append(event.stream_id)
            case h2.events.StreamReset():
                if event.stream_id in self._unanswered:
                    self._unanswered.remove(event.stream_id)
                self._upstream.resets.put_nowait(event.stream_id)
            case _:
                pass  # settings, window updates and pings are h2's own business

    def _answer(self, stream: int) -> None:
        self._h2.send_headers(stream, [(":status", "200"), ("content-type", "application/json")])
        self._h2.send_data(stream, json.dumps(ANSWER).encode(), end_stream=True)
