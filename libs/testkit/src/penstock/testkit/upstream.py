"""A scripted upstream: a small HTTP/1.1 server with OpenAI's chat and embedding protocol.

Deterministic: answers are a function of the request, pauses are given, and faults that real servers
have shown can be asked for, one a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from penstock.testkit import scripted_answers as messages
from penstock.testkit.scripted_answers import Json, Pace, Paces, ScriptedAnswer, repeat_to_length

__all__ = ["ScriptedAnswer", "ScriptedUpstream", "UpstreamFault"]

UpstreamFault = Literal[
    "400",
    "401",
    "403",
    "404",
    "408",
    "409",
    "413",
    "422",
    "429",
    "500",
    "503",
    "529",
    "reset",
    "silence",
    "malformed",
    "cut",
    "content_type",
    "oversized",
    "error_event",
]
"""A status, or: the connection is reset; nothing is ever answered; the body is no JSON; the answer
ends in its middle; the answer is HTML; the answer is 1 MiB long; the stream has an error event.
"""
ERROR_BODY = json.dumps({"error": {"message": "bad, with key sk-secret-1234567890"}})
OVERSIZED_BODY = b'{"choices": "' + b"x" * (1 << 20) + b'"}'
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


def repeat_last_message(body: Json) -> ScriptedAnswer:
    """Answer with the content of the last message."""
    return ScriptedAnswer(str(body["messages"][-1]["content"]))


@dataclass
class ScriptedUpstream:
    """The server, an async context manager.

    Attributes:
        script: the answer to a chat request's body.
        first_token_s: seconds to the first piece.
        per_word_s: seconds between words.
        paces: both, and the lengths of answers, request by request, in place of the two above.
        key: the API key to require; empty: any.
        tls: a server's TLS context; None: plain HTTP.
        report_usage: whether answers have token counts.
        count: tokens of a text to embed.
        faults: taken one for each request, in order; an empty string is no fault.
        requests: the request bodies so far.
        billed: the bodies of those whose answers were computed, with their usage, whether or not
            the answer reached its caller; faults are not billed.
        connections: number of connections accepted so far.
        caller_left: set when a caller closes its connection before the answer has ended.
        url: the base URL, while it serves.
    """

    script: Callable[[Json], ScriptedAnswer] = repeat_last_message
    first_token_s: float = 0.0
    per_word_s: float = 0.0
    paces: Paces | None = None
    key: str = ""
    tls: ssl.SSLContext | None = None
    report_usage: bool = True
    count: Callable[[str], int] = messages.estimated_tokens
    faults: deque[UpstreamFault] = field(default_factory=deque)
    requests: list[Json] = field(default_factory=list)
    billed: list[tuple[Json, Json]] = field(default_factory=list)
    connections: int = 0
    caller_left: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def open_connections(self) -> int:
        """Number of connections that are open now."""
        return len(self._writers)

    async def __aenter__(self) -> ScriptedUpstream:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"{'https' if self.tls else 'http'}://127.0.0.1:{port}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)

    def take_fault(self, head: dict[str, str]) -> str:
        """The fault of the next request, which has these headers; empty for none."""
        fault = self.faults.popleft() if self.faults else ""
        authorised = not self.key or head.get("authorization") == f"Bearer {self.key}"
        return fault if authorised else "401"

    def pace(self) -> Pace:
        """The pace of the newest request."""
        if self.paces is None:
            return Pace(self.first_token_s, self.per_word_s)
        return self.paces(len(self.requests) - 1)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        connection = _Connection(self, reader, writer)
        try:
            while await connection.serve_request():
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            self.caller_left.set()
        finally:
            self._writers.discard(writer)
            writer.close()


@dataclass(frozen=True)
class _Connection:
    """One connection: reads requests and writes answers."""

    upstream: ScriptedUpstream
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def serve_request(self) -> bool:
        """Answer the next request; false where the connection is to end."""
        head = await self._read_head()
        if not head:
            return False
        length = int(head.get("content-length", "0"))
        body = json.loads(await self.reader.readexactly(length) or b"{}")
        self.upstream.requests.append(body)
        fault = self.upstream.take_fault(head)
        if fault.isdigit():
            await self._send(ERROR_BODY.encode(), status=int(fault), extra="retry-after: 2\r\n")
            return True
        if fault == "reset":
            self.writer.transport.abort()
            return False
        if fault == "silence":
            await self.reader.read(1)
            self.upstream.caller_left.set()
            return False
        pace = self.upstream.pace()
        await asyncio.sleep(pace.first_token_s)
        return await self._answer(head["path"], body, fault, pace)

    async def _read_head(self) -> dict[str, str]:
        """The headers of the next request in lower case, and its `path`; empty at the end."""
        first = await self.reader.readline()
        if not first:
            return {}
        head = {"path": first.split()[1].decode()}
        while line := (await self.reader.readline()).strip():
            name, _, value = line.decode().partition(":")
            head[name.lower()] = value.strip()
        return head

    async def _answer(self, path: str, body: Json, fault: str, pace: Pace) -> bool:
        if fault == "content_type":
            await self._send(b"<html>hello</html>", content_type="text/html")
            return True
        if fault == "oversized":
            streamed = body.get("stream")
            await self._send(
                OVERSIZED_BODY,
                content_type="text/event-stream" if streamed else "application/json",
            )
            return True
        if path.endswith("/embeddings"):
            made = messages.embeddings(body, self.upstream.count)
            self.upstream.billed.append((body, made["usage"]))
            await self._send(json.dumps(made).encode())
            return True
        if path.endswith("/rerank"):
            await self._send(json.dumps(messages.ranking(body)).encode())
            return True
        answer = self.upstream.script(body)
        answer = replace(answer, text=repeat_to_length(answer.text, pace.words))
        if not fault:
            self.upstream.billed.append((body, messages.usage(body, answer)))
        if body.get("stream"):
            return await self._stream(body, answer, fault, pace.per_word_s)
        return await self._send_whole(body, answer, fault)

    async def _send_whole(self, body: Json, answer: ScriptedAnswer, fault: str) -> bool:
        report_usage = self.upstream.report_usage
        content = json.dumps(messages.completion(body, answer, report_usage=report_usage)).encode()
        if fault == "malformed":
            content = b'{"choices": ['
        if fault == "cut":
            await self._send(content[: len(content) // 2], length=len(content))
            return False
        await self._send(content)
        return True

    async def _stream(
        self, body: Json, answer: ScriptedAnswer, fault: str, per_word_s: float
    ) -> bool:
        self.writer.write(STREAM_HEAD)
        caller_left = asyncio.ensure_future(self.reader.read(1))
        try:
            if not await self._stream_words(body, answer, fault, per_word_s, caller_left):
                return False
            for index, (name, arguments) in enumerate(answer.tool_calls):
                await self._send_event(messages.tool_call_chunk(body, index, name, arguments))
            await self._send_event(messages.chunk(body, {}, answer.finish_reason))
            if self.upstream.report_usage:
                await self._send_event(messages.usage_chunk(body, answer))
            await self._send_text_event("[DONE]")
            self.writer.write(b"0\r\n\r\n")
            await self.writer.drain()
        finally:
            if not caller_left.done():
                caller_left.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await caller_left
        return True

    async def _stream_words(
        self,
        body: Json,
        answer: ScriptedAnswer,
        fault: str,
        per_word_s: float,
        caller_left: asyncio.Future[bytes],
    ) -> bool:
        """Send the answer's words; false where the stream ends before the last."""
        words = answer.text.split(" ")
        for number, word in enumerate(words):
            if fault == "cut" and number == max(1, len(words) // 2):
                return False
            if fault == "malformed" and number == 1:
                await self._send_text_event("{not json")
            if fault == "error_event" and number == 1:
                await self._send_text_event(ERROR_BODY)
            content = word if number == 0 else f" {word}"
            await self._send_event(messages.chunk(body, {"content": content}))
            if per_word_s:
                done, _ = await asyncio.wait([caller_left], timeout=per_word_s)
                if done:
                    self.upstream.caller_left.set()
                    return False
        return True

    async def _send(
        self,
        content: bytes,
        *,
        status: int = 200,
        content_type: str = "application/json",
        extra: str = "",
        length: int | None = None,
    ) -> None:
        """Send a whole response; `length` is the content-length where it is not the true one."""
        size = len(content) if length is None else length
        head = (
            f"HTTP/1.1 {status} X\r\n"
            f"content-type: {content_type}\r\n"
            f"content-length: {size}\r\n"
            f"{extra}\r\n"
        )
        self.writer.write(head.encode() + content)
        await self.writer.drain()

    async def _send_event(self, message: Json) -> None:
        await self._send_text_event(json.dumps(message))

    async def _send_text_event(self, data: str) -> None:
        event = f"data: {data}\n\n".encode()
        self.writer.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
        await self.writer.drain()
