"""A provider that answers at once: OpenAI's chat completions, in a process of its own.

What is asked with `"stream": true` is answered by CHUNKS events; a model called SLOW sends the
first of them and then nothing. `GET /last-body` gives the newest chat request as it came, and
`GET /last-close` the moment at which a slow answer's connection was closed, by the clock that all
processes share.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import httptools
import orjson
from penstock.service.program import loop_factory

CHAT = "chat"
SLOW = "slow"
CHUNKS = 200
USAGE = {"prompt_tokens": 12, "completion_tokens": 8, "total_tokens": 20}
HEAD = {"id": "chatcmpl-Bench0000000000000000000000001", "created": 1727346169, "model": CHAT}
WHOLE = orjson.dumps(
    {
        **HEAD,
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "The answer is forty-two."},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
    }
)


def chunk(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    """The JSON of one event."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return orjson.dumps({**HEAD, "object": "chat.completion.chunk", "choices": [choice]})


TEXT_CHUNK = chunk({"content": " token"})
FIRST_EVENT = b"data: " + chunk({"role": "assistant", "content": "A"}) + b"\n\n"
USAGE_CHUNK = orjson.dumps(
    {**HEAD, "object": "chat.completion.chunk", "choices": [], "usage": USAGE}
)
EVENTS = b"".join(
    (
        FIRST_EVENT,
        (b"data: " + TEXT_CHUNK + b"\n\n") * (CHUNKS - 2),
        b"data: " + chunk({}, "stop") + b"\n\n",
        b"data: " + USAGE_CHUNK + b"\n\n",
        b"data: [DONE]\n\n",
    )
)
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


def _framed(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)


STREAM = STREAM_HEAD + _framed(EVENTS) + b"0\r\n\r\n"
SLOW_STREAM = STREAM_HEAD + _framed(FIRST_EVENT)


def whole_response(body: bytes) -> bytes:
    """The response with a JSON body."""
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


WHOLE_RESPONSE = whole_response(WHOLE)


class _Connection(asyncio.Protocol):
    """One connection; `last_body` and `last_close_s` are of all connections."""

    last_body = b""
    last_close_s = 0.0

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._slow = False
        self._path, self._body = b"", b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass.

    def connection_lost(self, exc: Exception | None) -> None:
        if self._slow:
            _Connection.last_close_s = time.monotonic()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._path, self._body = b"", b""

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self._transport.write(self._response())

    def _response(self) -> bytes:
        if self._path == b"/last-body":
            return whole_response(_Connection.last_body)
        if self._path == b"/last-close":
            return whole_response(b"%.6f" % _Connection.last_close_s)
        if not self._body:
            return whole_response(b"{}")  # a gateway that asks which models there are
        _Connection.last_body = self._body
        request = orjson.loads(self._body)
        if not request.get("stream"):
            return WHOLE_RESPONSE
        self._slow = request["model"] == SLOW
        return SLOW_STREAM if self._slow else STREAM


@dataclass(frozen=True)
class Provider:
    """Where it listens, `host:port`, and its process."""

    address: str
    pid: int

    @property
    def base_url(self) -> str:
        """For clients of OpenAI's wire."""
        return f"http://{self.address}/v1"


@contextlib.contextmanager
def provider_process() -> Iterator[Provider]:
    """Run it in a child process, which ends when its standard input is closed."""
    command = [sys.executable, "-m", "penstock.bench.edge.provider"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdin is not None
    try:
        yield Provider(child.stdout.readline().strip(), child.pid)
    finally:
        child.stdin.close()
        child.stdout.close()
        child.wait(timeout=10)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Connection, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    print(f"{host}:{port}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve())
