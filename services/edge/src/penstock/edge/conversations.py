"""Answers to conversations, whole or as events, for every wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Protocol

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.edge.draining import Draining
from penstock.edge.failures import failure_of
from penstock.edge.http_exchange import HttpExchange
from penstock.edge.keep_alive import KeepAlive
from penstock.edge.receipt_header import receipt_header
from penstock.edge.receipts import Receipts
from penstock.edge.router_calls import RouterCalls
from penstock.edge.same_wire import EVENT_END, providers_event
from penstock.edge.settings import EdgeSettings
from penstock.edge.wire import Asked, Events, Failure, FailureKind, Identity, Wire
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault, internal

RECEIPT_HEADER = "x-penstock-receipt"
LEAVING = Failure(
    FailureKind.OVERLOADED, "the server is being stopped; send the request again", may_retry=True
)


class Keeping(Protocol):
    """Keeps answers of one caller before their end is told."""

    async def whole(
        self,
        result: inference_pb2.GenerateResult,
        usage: common_pb2.Usage,
        asked: Asked,
        identity: Identity,
    ) -> None:
        """Keep a whole answer."""
        ...

    async def streamed(self, events: Events) -> None:
        """Keep an answer whose last events are made."""
        ...


@dataclass(frozen=True)
class Conversation:
    """One conversation that is to be continued.

    Attributes:
        wire: of the caller.
        asked: what the wire has read.
        options: of the call.
        identity: what the answer is called.
        call: deadline and trace.
        key: the caller's.
        keeping: keeps the answer; None keeps nothing.
    """

    wire: Wire
    asked: Asked
    options: router_pb2.CallOptions
    identity: Identity
    call: Call
    key: str = field(repr=False)
    keeping: Keeping | None = None


class Conversations:
    """Serves what wires have read."""

    def __init__(
        self, router: RouterCalls, receipts: Receipts, draining: Draining, settings: EdgeSettings
    ) -> None:
        self._router = router
        self._receipts = receipts
        self._draining = draining
        self._settings = settings

    async def whole(self, exchange: HttpExchange, of: Conversation) -> None:
        """Answer in one piece.

        Raises:
            Fault: as the router says.
        """
        request = router_pb2.GenerateRequest(options=of.options, task=of.asked.task)
        answer = await self._router.call("Generate", request, of.call, of.key)
        usage = answer.receipt.usage
        self._receipts.keep(of.key, answer.receipt)
        exchange.add_header(RECEIPT_HEADER, receipt_header(answer.receipt))
        if of.keeping is not None:
            await of.keeping.whole(answer.result, usage, of.asked, of.identity)
        own = answer.result.wire_body
        await exchange.reply(200, own or of.wire.whole(answer.result, usage, of.asked, of.identity))

    async def stream(self, exchange: HttpExchange, of: Conversation) -> None:
        """Answer by events. A failure before the first piece has a status of its own; a later one
        is the last event.

        Raises:
            Fault: before anything was sent.
        """
        request = router_pb2.GenerateStreamRequest(options=of.options, task=of.asked.task)
        events, settings = of.wire.events(of.asked, of.identity), self._settings
        messages: Any = self._router.stream("GenerateStream", request, of.call, of.key)
        keep_alive = KeepAlive(exchange, settings.first_piece_s, settings.keep_alive_s)
        async with aclosing(messages), keep_alive:
            try:
                first = await _first(exchange, messages)
                if not isinstance(first, Fault) and first.chunk.wire_piece:
                    await keep_alive.stop()  # A piece may end inside a line.
                    await self._pass_on(exchange, first, messages, of.key)
                else:
                    await self._render(exchange, events, first, messages, keep_alive, of)
                await exchange.end_events()
            except Fault as fault:
                if not exchange.has_begun:
                    raise
                await keep_alive.stop()
                await self._fail(exchange, events, failure_of(fault))
            except asyncio.CancelledError:
                if not self._draining.is_over:
                    raise
                await keep_alive.stop()
                await self._fail(exchange, events, LEAVING)

    async def _pass_on(
        self, exchange: HttpExchange, first: Any, messages: AsyncIterator[Any], key: str
    ) -> None:
        """The provider's own events, byte by byte; after the last a comment with the receipt."""

        async def send(chunk: inference_pb2.GenerateChunk) -> None:
            if piece := chunk.wire_piece:
                await exchange.send_events(piece)

        await _begin(exchange)
        receipt = await _each_chunk(first, messages, send)
        self._receipts.keep(key, receipt)
        await exchange.send_events(_receipt_note(receipt))

    async def _render(
        self,
        exchange: HttpExchange,
        events: Events,
        first: Any,
        messages: AsyncIterator[Any],
        keep_alive: KeepAlive,
        of: Conversation,
    ) -> None:
        """The answer as events of the caller's wire; the answer is kept before its end is told."""

        async def send(chunk: inference_pb2.GenerateChunk) -> None:
            if frames := events.piece(chunk):
                keep_alive.heard()
                await exchange.send_events(frames)

        await keep_alive.say_from_now_on(events.keep_alive)
        await _begin(exchange)
        await exchange.send_events(events.start())
        if isinstance(first, Fault):
            raise first
        receipt = await _each_chunk(first, messages, send)
        await keep_alive.stop()
        self._receipts.keep(of.key, receipt)
        last = events.end(receipt.usage)
        if of.keeping is not None:
            await of.keeping.streamed(events)
        await exchange.send_events(_receipt_note(receipt) + last)

    async def _fail(self, exchange: HttpExchange, events: Events, failure: Failure) -> None:
        said = providers_event(failure) or events.failure(failure)
        # A provider's stream may have broken off inside a line.
        await exchange.send_events(EVENT_END + said)
        await exchange.end_events()


async def _first(exchange: HttpExchange, messages: AsyncIterator[Any]) -> Any | Fault:
    """The first message of an answer, or why there is none.

    Raises:
        Fault: why there is none, where nothing was sent.
    """
    try:
        message = await anext(messages, None)
        if message is None:
            raise internal("no answer")
        return message
    except Fault as fault:
        if not exchange.has_begun:
            raise
        return fault


async def _begin(exchange: HttpExchange) -> None:
    if not exchange.has_begun:
        await exchange.begin_events()


async def _each_chunk(
    first: Any,
    messages: AsyncIterator[Any],
    send: Callable[[inference_pb2.GenerateChunk], Awaitable[None]],
) -> common_pb2.Receipt:
    """Send each chunk of a stream; the receipt, which its last message has."""
    receipt: common_pb2.Receipt | None = None
    message = first
    while message is not None:
        if message.HasField("receipt"):
            receipt = message.receipt
        if message.HasField("chunk"):
            await send(message.chunk)
        message = await anext(messages, None)
    if receipt is None:
        raise internal("the answer ended without its receipt")
    return receipt


def _receipt_note(receipt: common_pb2.Receipt) -> bytes:
    """The receipt as a comment, which clients skip."""
    return f": {RECEIPT_HEADER} {receipt_header(receipt)}\n\n".encode()
