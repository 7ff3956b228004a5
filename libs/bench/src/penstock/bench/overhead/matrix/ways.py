"""The ways of a call, by name: each a function that sends one request with a payload."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
import orjson
from penstock.api.router.v1 import router_pb2
from penstock.bench.edge.http_client import HttpClient
from penstock.bench.edge.provider import CHAT
from penstock.bench.edge.requests import PATH as CHATS
from penstock.bench.harness.load import Send
from penstock.bench.overhead.matrix.semantic import semantic_hit_of
from penstock.bench.overhead.sends import echo_of, generate_of, miss_of, question_tasks
from penstock.bench.overhead.stacks import MODEL, TENANT
from penstock.bench.overhead.stored_texts import StoredTexts
from penstock.stack.stack import Stack

WORD = "order "
DOCUMENTS = 10
SMALL_BYTES = 100
KEYS, KEYS_OF_LARGE = 50_000, 2_000
"""Texts that the cache has: of SMALL_BYTES, and of larger ones, each of which takes as long to fill
in as it takes to send.
"""
PAYLOADS = (SMALL_BYTES, 10_000, 100_000)


def text_of(size: int) -> str:
    """A text of so many bytes."""
    return (WORD * (size // len(WORD) + 1))[:size]


@dataclass(frozen=True)
class Ways:
    """Who is asked: a stack by gRPC and by HTTP, and the bare echo."""

    stack: Stack
    http: HttpClient
    echo: grpc.aio.Channel

    async def of_payload(self, size: int, keys: int) -> dict[str, Send]:
        """All ways with a payload of so many bytes, `keys` texts stored before."""
        text = text_of(size)
        stored = StoredTexts(self.stack, keys, text)
        await stored.fill()
        return {
            "echo": echo_of(self.echo, text),
            "router hit": self._router_hit(text),
            "service hit": stored.send,
            "semantic hit": await semantic_hit_of(self.stack, text),
            "embed miss": miss_of(self.stack, text),
            "rerank": self._rerank(text),
            "generate": generate_of(self.stack, text),
            "generate, streamed": self._stream(text),
            "edge: chat hit": self._chat_hit(text),
            "edge: chat": self._chat(text, streamed=False),
            "edge: chat, streamed": self._chat(text, streamed=True),
            "edge: rerank": self._edge_rerank(text),
        }

    def _router_hit(self, text: str) -> Send:
        request = router_pb2.EmbedRequest(
            options=router_pb2.CallOptions(model=MODEL), texts=[f"{text} again"]
        )
        metadata = self.stack.metadata(TENANT)

        async def send(_: int) -> object:
            return await self.stack.router.Embed(request, metadata=metadata)

        return send

    def _rerank(self, text: str) -> Send:
        metadata = self.stack.metadata(TENANT)
        options = router_pb2.CallOptions(model=MODEL)
        documents = documents_of(text)

        async def send(number: int) -> object:
            request = router_pb2.RerankRequest(
                options=options, query=f"order {number}", documents=documents
            )
            return await self.stack.router.Rerank(request, metadata=metadata)

        return send

    def _stream(self, text: str) -> Send:
        metadata = self.stack.metadata(TENANT)
        tasks = question_tasks(text)

        async def send(_: int) -> object:
            options = router_pb2.CallOptions(model=CHAT)
            request = router_pb2.GenerateStreamRequest(options=options, task=next(tasks))
            return [
                part async for part in self.stack.router.GenerateStream(request, metadata=metadata)
            ]

        return send

    def _chat_hit(self, text: str) -> Send:
        request = self.http.post(CHATS, chat_body(f"What is the answer? {text}"))

        async def send(_: int) -> object:
            return await self.http.send(request)

        return send

    def _chat(self, text: str, *, streamed: bool) -> Send:
        tasks = question_tasks(text)

        async def send(_: int) -> object:
            question = next(tasks).messages[0].content
            return await self.http.send(
                self.http.post(CHATS, chat_body(question, streamed=streamed))
            )

        return send

    def _edge_rerank(self, text: str) -> Send:
        documents = documents_of(text)

        async def send(number: int) -> object:
            body = {"model": MODEL, "query": f"by edge {number}", "documents": documents}
            return await self.http.send(self.http.post("/v1/rerank", orjson.dumps(body)))

        return send


def documents_of(text: str) -> list[str]:
    """Documents that have the text's size together, each a different one."""
    share = max(1, len(text) // DOCUMENTS - 2)
    return [f"{place} {text[:share]}" for place in range(DOCUMENTS)]


def chat_body(question: str, *, streamed: bool = False) -> bytes:
    """The JSON of a chat of one turn."""
    body = {"model": CHAT, "messages": [{"role": "user", "content": question}]}
    return orjson.dumps(body | ({"stream": True} if streamed else {}))
