"""A real HTTP/2 server over TLS that answers every chat completion alike: hyper's h2 speaks the
protocol, asyncio the rest.

For what HTTP/1.1 cannot show: many calls at once on one connection, and the end of one of them
without the end of the others.
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
    """The server.

    Owner: whoever enters it; `tls` must be a server's context and is made to offer h2 alone.
    """

    tls: ssl.SSLContext
    min_concurrent: int = 1
    """Answers are held back until so many calls are under way at once."""
    connections: int = 0
    protocols: list[str | None] = field(default_factory=list)
    """What each connection agreed on by ALPN."""
    resets: asyncio.Queue[int] = field(default_factory=asyncio.Queue)
    """Streams that callers have given up."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def __aenter__(self) -> Http2Upstream:
        self.tls.set_alpn_protocols(["h2"])
        self._server = await asyncio.start_server(self._connection, "127.0.0.1", 0, ssl=self.tls)
        self.url = f"https://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        self.protocols.append(writer.get_extra_info("ssl_object").selected_alpn_protocol())
        spoken = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        )
        spoken.initiate_connection()
        bodies: dict[int, bytes] = {}
        asked: list[int] = []
        try:
            writer.write(spoken.data_to_send())
            while data := await reader.read(1 << 16):
                for event in spoken.receive_data(data):
                    self._take(event, spoken, bodies, asked)
                if len(asked) >= self.min_concurrent:
                    for stream in asked:
                        _answer(spoken, stream)
                    asked.clear()
                writer.write(spoken.data_to_send())
                await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            return
        finally:
            self._writers.discard(writer)
            writer.close()

    def _take(
        self,
        event: object,
        spoken: h2.connection.H2Connection,
        bodies: dict[int, bytes],
        asked: list[int],
    ) -> None:
        if isinstance(event, h2.events.DataReceived):
            bodies[event.stream_id] = bodies.get(event.stream_id, b"") + event.data
            spoken.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self.requests.append(json.loads(bodies.pop(event.stream_id, b"{}")))
            asked.append(event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            if event.stream_id in asked:
                asked.remove(event.stream_id)
            self.resets.put_nowait(event.stream_id)


def _answer(spoken: h2.connection.H2Connection, stream: int) -> None:
    spoken.send_headers(stream, [(":status", "200"), ("content-type", "application/json")])
    spoken.send_data(stream, json.dumps(ANSWER).encode(), end_stream=True)
