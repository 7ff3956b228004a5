"""A scripted upstream: a small HTTP/1.1 server that speaks OpenAI's chat and embedding protocol,
with faults on demand. Deterministic.

Answers come from a function of the request; pauses are given; every fault that a real server has
shown can be asked for, one a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from penstock.testkit.pace import Pace, Paces, repeat_to_length

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
WIDTH = 8


@dataclass(frozen=True)
class ScriptedAnswer:
    """One answer: its text, and the tokens that it reports."""

    text: str
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    tool_calls: tuple[tuple[str, str], ...] = ()
    finish_reason: str = "stop"


def echo(body: dict[str, Any]) -> ScriptedAnswer:
    """Repeats the last turn."""
    return ScriptedAnswer(str(body["messages"][-1]["content"]))


@dataclass
class ScriptedUpstream:
    """The server. Owner: whoever enters it; `url` is its address then."""

    script: Callable[[dict[str, Any]], ScriptedAnswer] = echo
    first_token_s: float = 0.0
    """Seconds to the first piece."""
    per_word_s: float = 0.0
    """Seconds between words."""
    paces: Paces | None = None
    """Both, and the lengths of answers, request by request; in place of the two above."""
    key: str = ""
    tls: ssl.SSLContext | None = None
    report_usage: bool = True
    faults: deque[UpstreamFault] = field(default_factory=deque)
    """Taken one for each request, in order; an empty string for none."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    connections: int = 0
    caller_left: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a caller closes its connection before the answer has ended."""
    url: str = ""
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def open_connections(self) -> int:
        """Connections that are open now."""
        return len(self._open)

    async def __aenter__(self) -> ScriptedUpstream:
        self._server = await asyncio.start_server(self._connection, "127.0.0.1", 0, ssl=self.tls)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"{'https' if self.tls else 'http'}://127.0.0.1:{port}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        try:
            while head := await self._head(reader):
                length = int(head.get("content-length", "0"))
                body = json.loads(await reader.readexactly(length) or b"{}")
                if not await self._answer(head, body, reader, writer):
                    return
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            self.caller_left.set()
        finally:
            self._open.discard(writer)
            writer.close()

    @staticmethod
    async def _head(reader: asyncio.StreamReader) -> dict[str, str]:
        first = await reader.readline()
        if not first:
            return {}
        head = {"path": first.split()[1].decode()}
        while line := (await reader.readline()).strip():
            name, _, value = line.decode().partition(":")
            head[name.lower()] = value.strip()
        return head

    async def _answer(
        self,
        head: dict[str, str],
        body: dict[str, Any],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        """Answer one request; false ends the connection."""
        self.requests.append(body)
        fault = self.faults.popleft() if self.faults else ""
        if self.key and head.get("authorization") != f"Bearer {self.key}":
            fault = "401"
        if fault.isdigit():
            await _send(
                writer,
                int(fault),
                b'{"error": {"message": "secret detail"}}',
                extra="retry-after: 2\r\n",
            )
            return True
        if fault == "reset":
            writer.transport.abort()
            return False
        if fault == "silence":
            await reader.read(1)
            self.caller_left.set()
            return False
        pace = (
            self.paces(len(self.requests) - 1)
            if self.paces
            else Pace(self.first_token_s, self.per_word_s)
        )
        await asyncio.sleep(pace.first_token_s)
        if fault == "content_type":
            await _send(writer, 200, b"<html>hello</html>", kind="text/html")
            return True
        if fault == "oversized":
            await _send(writer, 200, b'{"choices": "' + b"x" * (1 << 20) + b'"}', kind=_kind(body))
            return True
        if head["path"].endswith("/embeddings"):
            await _send(writer, 200, json.dumps(self._embeddings(body)).encode())
            return True
        said = self.script(body)
        said = replace(said, text=repeat_to_length(said.text, pace.words))
        if not body.get("stream"):
            text = (
                b'{"choices": ['
                if fault == "malformed"
                else json.dumps(self._whole(body, said)).encode()
            )
            await _send(
                writer, 200, text[: len(text) // 2] if fault == "cut" else text, length=len(text)
            )
            return fault != "cut"
        return await self._stream(body, said, fault, pace.per_word_s, reader, writer)

    async def _stream(
        self,
        body: dict[str, Any],
        said: ScriptedAnswer,
        fault: str,
        per_word_s: float,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: "
            b"chunked\r\n\r\n"
        )
        gone = asyncio.ensure_future(reader.read(1))
        words = said.text.split(" ")
        try:
            for number, word in enumerate(words):
                if fault == "cut" and number == max(1, len(words) // 2):
                    return False
                if fault == "malformed" and number == 1:
                    await _event(writer, "{not json")
                if fault == "error_event" and number == 1:
                    await _event(writer, json.dumps({"error": {"message": "secret detail"}}))
                delta = {"content": word if number == 0 else f" {word}"}
                await _event(writer, json.dumps(self._piece(body, delta, None)))
                if per_word_s:
                    done, _ = await asyncio.wait([gone], timeout=per_word_s)
                    if done:
                        self.caller_left.set()
                        return False
            for index, (name, arguments) in enumerate(said.tool_calls):
                function = {"name": name, "arguments": arguments}
                delta_call = {
                    "tool_calls": [{"index": index, "id": f"call-{index}", "function": function}]
                }
                await _event(writer, json.dumps(self._piece(body, delta_call, None)))
            await _event(writer, json.dumps(self._piece(body, {}, said.finish_reason)))
            if self.report_usage:
                last = {"model": body["model"], "choices": [], "usage": self._usage(body, said)}
                await _event(writer, json.dumps(last))
            await _event(writer, "[DONE]")
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        finally:
            if not gone.done():
                gone.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await gone
        return True

    def _piece(
        self, body: dict[str, Any], delta: dict[str, Any], reason: str | None
    ) -> dict[str, Any]:
        return {
            "model": body["model"],
            "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
        }

    def _whole(self, body: dict[str, Any], said: ScriptedAnswer) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": said.text}
        if said.tool_calls:
            message["tool_calls"] = [
                {
                    "id": f"call-{index}",
                    "type": "function",
                    "function": {"name": name, "arguments": arguments},
                }
                for index, (name, arguments) in enumerate(said.tool_calls)
            ]
        whole = {
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": said.finish_reason}],
        }
        return {**whole, "usage": self._usage(body, said)} if self.report_usage else whole

    @staticmethod
    def _usage(body: dict[str, Any], said: ScriptedAnswer) -> dict[str, Any]:
        read = sum(len(str(message.get("content") or "")) for message in body["messages"]) // 4 + 3
        return {
            "prompt_tokens": read,
            "completion_tokens": len(said.text.split(" ")) + said.reasoning_tokens,
            "prompt_tokens_details": {"cached_tokens": min(said.cached_tokens, read)},
            "completion_tokens_details": {"reasoning_tokens": said.reasoning_tokens},
        }

    @staticmethod
    def _embeddings(body: dict[str, Any]) -> dict[str, Any]:
        rows = [
            {
                "index": index,
                "embedding": [
                    byte / 255 for byte in hashlib.sha256(text.encode()).digest()[:WIDTH]
                ],
            }
            for index, text in enumerate(body["input"])
        ]
        return {
            "model": body["model"],
            "data": rows[::-1],
            "usage": {"prompt_tokens": sum(map(len, body["input"])) // 4},
        }


def _kind(body: dict[str, Any]) -> str:
    return "text/event-stream" if body.get("stream") else "application/json"


async def _send(
    writer: asyncio.StreamWriter,
    status: int,
    body: bytes,
    kind: str = "application/json",
    extra: str = "",
    length: int = -1,
) -> None:
    size = len(body) if length < 0 else length
    head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {size}\r\n{extra}\r\n"
    writer.write(head.encode() + body)
    await writer.drain()


async def _event(writer: asyncio.StreamWriter, data: str) -> None:
    text = f"data: {data}\n\n".encode()
    writer.write(f"{len(text):x}\r\n".encode() + text + b"\r\n")
    await writer.drain()
