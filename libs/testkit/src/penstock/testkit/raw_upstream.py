"""An upstream that sends given bytes in given pieces, whatever it is asked: for recorded answers,
and for protocols and faults that the scripted upstream does not have.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

EVENT_STREAM = "text/event-stream"


class RawAnswer(NamedTuple):
    """One response; where `once` is given, it is sent when that is set."""

    pieces: Sequence[bytes]
    status: int = 200
    content_type: str = EVENT_STREAM
    headers: Mapping[str, str] = {}
    once: asyncio.Event | None = None


class RawRequest(NamedTuple):
    """One request: its target with the query, its headers in lower case, its body as a value and
    as it came.
    """

    target: str
    headers: Mapping[str, str]
    body: Any
    raw: bytes = b""


Answers = Callable[[RawRequest], RawAnswer]


def in_pieces(body: bytes, size: int = 1) -> list[bytes]:
    """A body in pieces of so many bytes, the last one perhaps shorter."""
    return [body[start : start + size] for start in range(0, len(body), size)]


def events(*values: Any, done: bool = True) -> RawAnswer:
    """A stream of JSON values as data, and OpenAI's end marker."""
    pieces = [f"data: {json.dumps(value)}\n\n".encode() for value in values]
    return RawAnswer([*pieces, b"data: [DONE]\n\n"] if done else pieces)


def whole(value: Any, status: int = 200, **headers: str) -> RawAnswer:
    """A JSON value as a whole answer; underscores in the names of headers become hyphens."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return RawAnswer([json.dumps(value).encode()], status, "application/json", named)


@dataclass
class RawUpstream:
    """The server, an async context manager. `answer` gives the response to each request."""

    answer: Answers
    requests: list[RawRequest] = field(default_factory=list)
    url: str = ""
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def __aenter__(self) -> RawUpstream:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()[:2]
        self.url = f"http://{host}:{port}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while True:
                    request = await _read_request(reader)
                    self.requests.append(request)
                    await _send(writer, self.answer(request))
        finally:
            self._writers.discard(writer)
            writer.close()


async def _read_request(reader: asyncio.StreamReader) -> RawRequest:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    fields = (line.partition(":") for line in head[1:] if line)
    headers = {name.lower(): value.strip() for name, _, value in fields}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return RawRequest(head[0].split()[1], headers, json.loads(body or b"null"), body)


async def _send(writer: asyncio.StreamWriter, answer: RawAnswer) -> None:
    """Send a response, each piece of its body as one chunk of HTTP."""
    if answer.once is not None:
        await answer.once.wait()
    lines = [f"HTTP/1.1 {answer.status} X", f"content-type: {answer.content_type}"]
    lines += [f"{name}: {value}" for name, value in answer.headers.items()]
    lines += ["transfer-encoding: chunked", "", ""]
    writer.write("\r\n".join(lines).encode())
    for piece in answer.pieces:
        if piece:
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            await writer.drain()
    writer.write(b"0\r\n\r\n")
    await writer.drain()
